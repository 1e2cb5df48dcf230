//! One node's value: read, bounded, parsed strictly.

use super::NegotiationError;

/// What reads a node of the other side's directory by its relative name.
pub(super) type Read<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// The longest decimal number any node can have: 2^64 has 20 digits.
const DIGITS: usize = 20;

/// A decimal number: digits only, no sign, no space, no terminator.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > DIGITS {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => u64::from(byte - b'0'),
            _ => return None,
        };
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The number in a node within bounds, if the node is there.
pub(super) fn optional(
    read: Read<'_>,
    node: &str,
    min: u64,
    max: u64,
) -> Result<Option<u64>, NegotiationError> {
    let Some(value) = read(node) else { return Ok(None) };
    let Some(value) = decimal(&value) else {
        return Err(NegotiationError::Malformed { node: node.to_owned() });
    };
    if value < min || value > max {
        return Err(NegotiationError::OutOfRange { node: node.to_owned(), value, min, max });
    }
    Ok(Some(value))
}

/// A 32-bit number in a node that must be there.
pub(super) fn required_u32(read: Read<'_>, node: &str, min: u32) -> Result<u32, NegotiationError> {
    let missing = || NegotiationError::Missing { node: node.to_owned() };
    let value = optional(read, node, u64::from(min), u64::from(u32::MAX))?.ok_or_else(missing)?;
    u32::try_from(value).map_err(|_| NegotiationError::Malformed { node: node.to_owned() })
}

/// A 32-bit number within bounds, or its default.
pub(super) fn u32_or(
    read: Read<'_>,
    node: &str,
    default: u32,
    min: u32,
    max: u32,
) -> Result<u32, NegotiationError> {
    match optional(read, node, u64::from(min), u64::from(max))? {
        None => Ok(default),
        Some(value) => {
            u32::try_from(value).map_err(|_| NegotiationError::Malformed { node: node.to_owned() })
        }
    }
}

/// A boolean node: 0 or 1, absent is 0.
pub(super) fn boolean(read: Read<'_>, node: &str) -> Result<bool, NegotiationError> {
    Ok(optional(read, node, 0, 1)? == Some(1))
}
