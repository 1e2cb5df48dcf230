//! The states both ends of a device go through (Xen's io/xenbus.h, enum xenbus_state).

use std::fmt;

/// The value of a `state` node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum XenbusState {
    /// No state: the device's node is gone, or was never there.
    Unknown = 0,
    /// The toolstack made the device.
    Initialising = 1,
    /// The backend published what it can do, and waits for the frontend.
    InitWait = 2,
    /// This end is set up, and waits for the other.
    Initialised = 3,
    /// Requests flow.
    Connected = 4,
    /// This end wants to stop, or was told to.
    Closing = 5,
    /// This end let go of everything.
    Closed = 6,
    /// Not used by block devices.
    Reconfiguring = 7,
    /// Not used by block devices.
    Reconfigured = 8,
}

impl XenbusState {
    /// All of them, in their numbers' order.
    pub const ALL: [XenbusState; 9] = [
        XenbusState::Unknown,
        XenbusState::Initialising,
        XenbusState::InitWait,
        XenbusState::Initialised,
        XenbusState::Connected,
        XenbusState::Closing,
        XenbusState::Closed,
        XenbusState::Reconfiguring,
        XenbusState::Reconfigured,
    ];

    /// The value of the node.
    pub const fn name(self) -> &'static str {
        match self {
            XenbusState::Unknown => "0",
            XenbusState::Initialising => "1",
            XenbusState::InitWait => "2",
            XenbusState::Initialised => "3",
            XenbusState::Connected => "4",
            XenbusState::Closing => "5",
            XenbusState::Closed => "6",
            XenbusState::Reconfiguring => "7",
            XenbusState::Reconfigured => "8",
        }
    }

    /// The state of a node's value: one digit.
    pub fn parse(value: &[u8]) -> Option<XenbusState> {
        Self::ALL.into_iter().find(|state| state.name().as_bytes() == value)
    }
}

impl fmt::Display for XenbusState {
    /// The number, as the node has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
