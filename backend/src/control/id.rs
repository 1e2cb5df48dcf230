//! Which disk: its place in the tree, its files, its name in logs.

use std::fmt;

/// A disk's place: `/local/domain/<own>/backend/<kind>/<domain>/<device>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskId {
    /// The kind of backend.
    pub kind: String,
    /// The frontend's domain.
    pub domain: u16,
    /// The device's number in the guest.
    pub device: u32,
}

impl DiskId {
    /// The disk of `<domain>/<device>` under a kind; none where these are no numbers as libxl writes them.
    pub fn new(kind: &str, domain: &str, device: &str) -> Option<Self> {
        Some(Self { kind: kind.to_owned(), domain: number(domain)?, device: number(device)? })
    }

    /// The path below a `backend` directory, or below `error/backend`.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.kind, self.domain, self.device)
    }

    /// The name of its restart record.
    pub fn file(&self) -> String {
        format!("{}-{}-{}.toml", self.kind, self.domain, self.device)
    }

    /// Whether a file of this name, without its ending, is a disk's.
    pub fn is_file_stem(stem: &str) -> bool {
        let mut parts = stem.rsplitn(3, '-');
        let (device, domain, kind) = (parts.next(), parts.next(), parts.next());
        device
            .zip(domain)
            .zip(kind)
            .is_some_and(|((device, domain), kind)| Self::new(kind, domain, device).is_some())
    }

    /// The token of the watch on its frontend.
    pub fn token(&self) -> String {
        format!("frontend/{}", self.path())
    }

    /// The disk of such a token.
    pub fn from_token(token: &str) -> Option<Self> {
        let mut parts = token.strip_prefix("frontend/")?.split('/');
        let id = Self::new(parts.next()?, parts.next()?, parts.next()?)?;
        parts.next().is_none().then_some(id)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// A number without sign or leading zeros, so that one directory is one disk.
fn number<T: std::str::FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_when_written_as_a_token_and_read_then_is_the_same() {
        let id = DiskId::new("vbd3", "1", "51712").unwrap();
        assert_eq!(DiskId::from_token(&id.token()), Some(id));
    }

    #[test]
    fn directory_when_no_plain_numbers_then_is_no_disk() {
        for (domain, device) in
            [("x", "1"), ("1", ""), ("01", "1"), ("+1", "1"), ("65536", "1"), ("1", "hda")]
        {
            assert_eq!(DiskId::new("vbd3", domain, device), None, "{domain}/{device}");
        }
        for token in ["", "frontend/", "frontend/a/1/2/3", "kind/vbd3", "frontend/a/1"] {
            assert_eq!(DiskId::from_token(token), None, "{token}");
        }
    }
}
