//! Listening for events, silence included, without waiting for time to pass.

use xenstore::{Client, Permission};

use crate::subject::{GUARD, Subject};

const FENCE: &str = "/fence";

/// Listens to a client's events up to a fence: an event known to come after all others so far.
pub struct Ears {
    client: Client,
    dom0: Client,
}

impl Ears {
    pub fn new(subject: &Subject, client: &Client) -> Ears {
        let dom0 = subject.dom0();
        dom0.write(FENCE, "").unwrap();
        dom0.set_permissions(FENCE, &[Permission::read(0)]).unwrap();
        client.watch(FENCE, "fence").unwrap();
        let ears = Ears { client: client.clone(), dom0 };
        ears.until_fence();
        ears
    }

    /// All events since the last call, as path and token.
    pub fn heard(&self) -> Vec<(String, String)> {
        self.dom0.write(FENCE, "").unwrap();
        self.until_fence()
    }

    /// The paths of all events since the last call.
    pub fn paths(&self) -> Vec<String> {
        self.heard().into_iter().map(|(path, _)| path).collect()
    }

    fn until_fence(&self) -> Vec<(String, String)> {
        let mut heard = Vec::new();
        loop {
            let (path, token) = next(&self.client);
            if token == "fence" {
                return heard;
            }
            heard.push((path, token));
        }
    }
}

/// The next event.
pub fn next(client: &Client) -> (String, String) {
    let event = client.events().next_within(GUARD).expect("an event");
    (event.path, event.token)
}
