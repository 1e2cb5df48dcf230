//! Why the other side's nodes cannot be accepted.

/// What is wrong with a node. The value itself is not repeated: it is the guest's, and of any length.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NegotiationError {
    /// A node that must be there is not.
    #[error("{node} is missing")]
    Missing {
        /// Its name, under the other side's directory.
        node: String,
    },
    /// Not a decimal number of its range's length, or not one of the values it can have.
    #[error("{node} is not a value this node can have")]
    Malformed {
        /// Its name.
        node: String,
    },
    /// A number outside what was offered.
    #[error("{node} is {value}, allowed is {min} to {max}")]
    OutOfRange {
        /// Its name.
        node: String,
        /// As written.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// The same ring page, or event channel, twice.
    #[error("{node} repeats {value}, which another node names already")]
    Repeated {
        /// The second node's name.
        node: String,
        /// The value of both.
        value: u32,
    },
    /// The frontend counts sectors in units that depend on sector-size, so the disk cannot have this
    /// one.
    #[error("feature-large-sector-size makes a sector size of {0} bytes ambiguous")]
    LargeSectorSize(u32),
}
