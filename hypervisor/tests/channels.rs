//! Event channels of the simulation: who may bind, what coalesces, what is remembered.

mod common;

use std::time::Duration;

use common::{BACK, FRONT, OTHER, World};
use hypervisor::sim::Broker;
use hypervisor::{Backend, Counted, Error, EventChannel, Frontend, Port, PortFault, sim};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn fault<T>(result: Result<T, Error>) -> PortFault {
    match result {
        Err(Error::Port { fault, .. }) => fault,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Whether a poll of the channel's descriptor would return now.
fn readable(channel: &dyn EventChannel) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
}

/// A bound pair, the event that binding gives already taken.
fn pair(world: &World) -> (Box<dyn EventChannel>, Box<dyn EventChannel>) {
    let front = world.connect(FRONT).allocate(BACK).unwrap();
    let back = world.connect(BACK).bind(FRONT, front.port()).unwrap();
    assert!(back.acknowledge().unwrap(), "a port just bound has an event");
    back.unmask().unwrap();
    (front, back)
}

#[test]
fn notify_when_several_come_before_the_look_then_one_event() {
    let world = World::new();
    let (front, back) = pair(&world);
    assert!(!readable(&*back));
    assert!(!back.acknowledge().unwrap());
    for _ in 0..5 {
        front.notify().unwrap();
    }
    assert!(readable(&*back));
    assert!(back.acknowledge().unwrap());
    assert!(!back.acknowledge().unwrap());
    back.unmask().unwrap();
    assert!(!readable(&*back));
    assert!(!readable(&*front), "and the other way nothing was sent");
    back.notify().unwrap();
    assert!(front.acknowledge().unwrap());
}

#[test]
fn notify_when_masked_then_remembered_until_unmask() {
    let world = World::new();
    let (front, back) = pair(&world);
    front.notify().unwrap();
    assert!(back.acknowledge().unwrap());
    front.notify().unwrap();
    front.notify().unwrap();
    assert!(!readable(&*back), "masked: nothing is delivered");
    assert!(!back.acknowledge().unwrap());
    back.unmask().unwrap();
    assert!(readable(&*back));
    assert!(back.acknowledge().unwrap());
    back.unmask().unwrap();
    assert!(!readable(&*back));
}

#[test]
fn unmask_when_nothing_was_acknowledged_then_does_nothing() {
    let world = World::new();
    let (front, back) = pair(&world);
    back.unmask().unwrap();
    assert!(!readable(&*back));
    front.notify().unwrap();
    back.unmask().unwrap();
    assert!(back.acknowledge().unwrap());
}

#[test]
fn notify_when_a_sleeper_polls_then_it_wakes() {
    let world = World::new();
    let (front, back) = pair(&world);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let mut polled = [PollFd::from_borrowed_fd(back.as_fd(), PollFlags::IN)];
            let guard = Timespec::try_from(Duration::from_secs(60)).unwrap();
            poll(&mut polled, Some(&guard)).unwrap()
        });
        front.notify().unwrap();
        assert_eq!(sleeper.join().unwrap(), 1);
    });
}

#[test]
fn bind_when_allocated_for_another_or_not_at_all_then_refused() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let channel = front.allocate(BACK).unwrap();
    assert_eq!(fault(world.connect(OTHER).bind(FRONT, channel.port())), PortFault::NotYours);
    assert_eq!(fault(back.bind(FRONT, Port(channel.port().0 + 1))), PortFault::Closed);
    assert_eq!(fault(back.bind(FRONT, Port(u32::MAX))), PortFault::Closed);
    let port = channel.port();
    drop(channel);
    assert_eq!(fault(back.bind(FRONT, port)), PortFault::Closed);
}

#[test]
fn bind_when_bound_already_then_refused_until_that_end_closes() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let channel = front.allocate(BACK).unwrap();
    let bound = back.bind(FRONT, channel.port()).unwrap();
    assert_eq!(fault(back.bind(FRONT, channel.port())), PortFault::Bound);
    assert_eq!(world.broker.usage(FRONT).bound, 1);
    drop(bound);
    let usage = world.broker.usage(FRONT);
    assert_eq!((usage.bound, usage.ports), (0, 1));

    let again = back.bind(FRONT, channel.port()).unwrap();
    assert!(again.acknowledge().unwrap());
    again.unmask().unwrap();
    channel.notify().unwrap();
    assert!(again.acknowledge().unwrap());
}

#[test]
fn notify_when_the_other_end_is_unbound_or_closed_then_no_error_and_no_event() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let channel = front.allocate(BACK).unwrap();
    channel.notify().unwrap();
    let bound = back.bind(FRONT, channel.port()).unwrap();
    assert!(bound.acknowledge().unwrap());
    assert!(!bound.acknowledge().unwrap(), "lost, but for the event every bind gives");
    bound.unmask().unwrap();
    let port = channel.port();
    drop(channel);
    bound.notify().unwrap();
    assert!(!readable(&*bound), "nobody is told that the other end closed");
    let reused = front.allocate(OTHER).unwrap();
    assert_eq!(reused.port(), port);
    assert!(!readable(&*reused));
    bound.notify().unwrap();
    assert!(!readable(&*reused), "a new port of the same number is another channel");
}

#[test]
fn port_when_the_allocating_end_closes_then_the_allocating_domain_can_bind_the_other() {
    let world = World::new();
    let (front, back) = (world.connect(FRONT), world.connect(BACK));
    let channel = front.allocate(BACK).unwrap();
    let bound = back.bind(FRONT, channel.port()).unwrap();
    drop(channel);
    assert_eq!(fault(world.connect(OTHER).bind(BACK, bound.port())), PortFault::NotYours);
    let again = front.bind(BACK, bound.port()).unwrap();
    bound.acknowledge().unwrap();
    bound.unmask().unwrap();
    again.notify().unwrap();
    assert!(bound.acknowledge().unwrap());
}

#[test]
fn statistics_when_events_pass_then_count_them() {
    let world = World::new();
    let front = world.connect(FRONT);
    let back = world.connect(BACK);
    let channel = front.allocate(BACK).unwrap();
    let bound = back.bind(FRONT, channel.port()).unwrap();
    bound.acknowledge().unwrap();
    bound.unmask().unwrap();
    for _ in 0..3 {
        channel.notify().unwrap();
    }
    bound.acknowledge().unwrap();
    assert_eq!(front.statistics().notified, 3);
    assert_eq!(back.statistics().events, 2);
    drop((channel, bound));
    assert_eq!((front.statistics().channels_opened, front.statistics().channels_closed), (1, 1));
    assert_eq!((back.statistics().channels_opened, back.statistics().channels_closed), (1, 1));
}

#[test]
fn broker_when_one_runs_on_the_directory_then_a_second_is_refused_and_a_later_one_is_not() {
    let world = World::new();
    assert!(Broker::start(world.dir.path()).is_err());
    let front = world.connect(FRONT);
    let channel = front.allocate(BACK).unwrap();
    let back = world.connect(BACK);
    let bound = back.bind(FRONT, channel.port()).unwrap();
    let World { broker, dir } = world;
    drop(broker);
    bound.acknowledge().unwrap();
    bound.unmask().unwrap();
    channel.notify().unwrap();
    assert!(bound.acknowledge().unwrap(), "notifications need no broker");
    assert!(matches!(front.allocate(BACK), Err(Error::Disconnected)));
    assert!(sim::connect(dir.path(), FRONT).is_err());
    let _later = Broker::start(dir.path()).unwrap();
    sim::connect(dir.path(), FRONT).unwrap();
}
