//! A disk in memory, with metadata beside it.

use integrity::{Escape, Expected, Profile};

/// Data and, with a profile, metadata of every interval, escaped at first.
pub struct Medium {
    pub data: Vec<u8>,
    pub metadata: Vec<u8>,
    pub profile: Option<Profile>,
}

impl Medium {
    pub fn new(bytes: usize, profile: Option<Profile>) -> Self {
        let metadata = profile.map_or(0, |profile| profile.metadata_len(bytes));
        Self { data: vec![0; bytes], metadata: vec![0xff; metadata], profile }
    }

    pub fn write(&mut self, at: usize, data: &[u8], metadata: Option<&[u8]>) {
        self.data[at..at + data.len()].copy_from_slice(data);
        let Some(profile) = self.profile else { return };
        let first = at / profile.interval();
        let range = first * profile.metadata_size()..;
        let own = &mut self.metadata[range][..profile.metadata_len(data.len())];
        match metadata {
            Some(metadata) => own.copy_from_slice(metadata),
            None => profile.generate(data, own, first as u64, 0),
        }
    }

    pub fn metadata_of(&self, at: usize, len: usize) -> &[u8] {
        let Some(profile) = self.profile else { return &[] };
        &self.metadata[at / profile.interval() * profile.metadata_size()..][..profile.metadata_len(len)]
    }

    pub fn discard(&mut self, at: usize, len: usize) {
        self.data[at..at + len].fill(0);
        if let Some(profile) = self.profile {
            let first = at / profile.interval() * profile.metadata_size();
            self.metadata[first..first + profile.metadata_len(len)].fill(0xff);
        }
    }

    /// What a backend checks of a write; escapes pass.
    pub fn verify(&self, at: usize, data: &[u8], metadata: &[u8]) -> Result<(), integrity::Tag> {
        let profile = self.profile.unwrap();
        let expected = Expected {
            reference: (at / profile.interval()) as u64,
            application: None,
            escape: Escape::Accept,
        };
        profile.verify(data, metadata, &expected).map(drop).map_err(|mismatch| mismatch.tag)
    }
}
