//! Every reachable state under every view, and arbitrary sequences, against the rules that must always hold.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// What a helper thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Job {
    Probe,
    Open,
    Grow,
    Drain,
    Suspend,
}

/// A machine with its effects: the state node, the connection, the helper thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    machine: Machine,
    own: Option<XenbusState>,
    live: bool,
    job: Option<Job>,
    released: bool,
}

/// What the environment does between two looks.
#[derive(Clone, Copy, Debug)]
struct Move {
    /// The state node becomes this; none leaves it.
    own: Option<Option<XenbusState>>,
    online: bool,
    frontend: XenbusState,
    /// A helper that works finishes: with success or without.
    finish: Option<bool>,
    /// A failure is for now only.
    not_now: bool,
    overdue: bool,
    condemn: bool,
    stop: bool,
    grow: bool,
    retry: bool,
    announced: Announced,
    /// Every write of a state meets somebody else's.
    overtake: bool,
}

impl World {
    fn new() -> Self {
        let machine = Machine::default();
        World { machine, own: Some(Initialising), live: false, job: None, released: false }
    }

    fn finish(&mut self, well: bool, not_now: bool) {
        match self.job.take() {
            None => {}
            Some(Job::Probe) => self.machine.probed(if not_now && !well { None } else { Some(well) }),
            Some(Job::Open) => {
                self.live = well;
                self.machine.opened(match well {
                    true => Opened::Running,
                    false if not_now => Opened::NotNow,
                    false => Opened::Refused,
                });
            }
            Some(Job::Grow) => self.machine.grown(well),
            Some(Job::Drain) => self.machine.drained(),
            Some(Job::Suspend) => self.machine.suspended(well),
        }
    }

    fn start(&mut self, job: Job) {
        assert_eq!(self.job, None, "two helpers at once");
        match job {
            Job::Probe => assert!(!self.live),
            Job::Open => assert!(!self.live, "two connections at once"),
            Job::Grow => assert!(self.live, "nothing to grow"),
            Job::Drain | Job::Suspend => {
                assert!(self.live, "nothing to stop");
                self.live = false;
            }
        }
        self.job = Some(job);
    }

    fn make(&mut self, m: Move) {
        if self.released {
            return;
        }
        if let Some(own) = m.own {
            self.own = own;
        }
        if m.condemn {
            self.machine.condemn();
        }
        if m.stop {
            self.machine.stop();
        }
        if m.grow {
            self.machine.grow();
        }
        if m.retry {
            self.machine.retry();
        }
        if let Some(well) = m.finish {
            self.finish(well, m.not_now);
        }
        for _ in 0..16 {
            let view = View { own: self.own, online: m.online, frontend: m.frontend, overdue: m.overdue };
            let done = !m.overtake && self.own.is_some();
            match self.machine.next(view) {
                Step::Rest => return self.check(),
                Step::Probe => self.start(Job::Probe),
                Step::Open | Step::Resume => self.start(Job::Open),
                Step::Announce => {
                    let outcome = if done { m.announced } else { Announced::Overtaken };
                    self.machine.announced(outcome);
                    match outcome {
                        Announced::Done => self.own = Some(InitWait),
                        Announced::Withheld | Announced::TooLate => {}
                        Announced::Renewed | Announced::Overtaken => return self.check(),
                    }
                }
                Step::Publish => {
                    assert!(self.live, "Connected without a connection");
                    assert!(self.job.is_none());
                    self.machine.published(done);
                    if !done {
                        return self.check();
                    }
                    self.own = Some(Connected);
                }
                Step::Drain { say } => {
                    if say && done {
                        self.own = Some(Closing);
                        self.machine.wrote(Closing, true);
                    }
                    self.start(Job::Drain);
                }
                Step::Grow => self.start(Job::Grow),
                Step::Tell => {
                    assert!(self.live && self.own == Some(Connected));
                    self.machine.told();
                }
                Step::Suspend => self.start(Job::Suspend),
                Step::Say(state) => {
                    assert!(matches!(state, Closing | Closed));
                    assert!(state == Closing || !self.live, "Closed with a connection");
                    self.machine.wrote(state, done);
                    if !done {
                        return self.check();
                    }
                    self.own = Some(state);
                }
                Step::Retire => assert!(!self.live && !m.online && self.own == Some(Closed)),
                Step::Release => {
                    assert!(!self.live && self.job.is_none(), "released with something open");
                    assert_eq!(self.own, None);
                    self.released = true;
                    return;
                }
            }
        }
        panic!("no rest: {self:?} {m:?}");
    }

    fn check(&self) {
        assert_eq!(self.machine.busy(), self.job.is_some());
        assert_eq!(self.machine.holds(), self.live);
        assert!(!(self.live && self.machine.condemned && self.job.is_none()), "a condemned connection rests");
        if self.machine.settled() {
            assert!(!self.live && !matches!(self.job, Some(Job::Open | Job::Drain | Job::Suspend)));
        }
    }

    /// A toolstack that removes the disk for good, and helpers that finish.
    fn remove(mut self) {
        let calm = |own, finish| Move { own, online: false, finish, ..calm(Unknown) };
        let stopping = self.machine.stopping;
        if !self.released && self.own.is_some_and(|own| own != Closed) {
            self.make(calm(Some(Some(Closing)), None));
        }
        for _ in 0..4 {
            self.make(calm(None, Some(true)));
        }
        assert!(!self.live && self.job.is_none(), "{self:?}");
        if !self.released && !stopping {
            assert!(matches!(self.own, None | Some(Closed)), "{self:?}");
        }
        self.make(calm(Some(None), None));
        self.make(calm(None, Some(true)));
        assert!(self.released || self.machine.is_suspended(), "{self:?}");
    }
}

/// A look at a frontend in this state, and nothing else happens.
fn calm(frontend: XenbusState) -> Move {
    Move {
        own: None,
        online: true,
        frontend,
        finish: None,
        not_now: false,
        overdue: false,
        condemn: false,
        stop: false,
        grow: false,
        retry: false,
        announced: Announced::Done,
        overtake: false,
    }
}

fn moves() -> Vec<Move> {
    let mut moves = Vec::new();
    let announced = [Announced::Done, Announced::Withheld, Announced::TooLate, Announced::Renewed];
    let mut owns = vec![None, Some(None)];
    owns.extend(XenbusState::ALL.map(|state| Some(Some(state))));
    for own in owns {
        for frontend in XenbusState::ALL {
            for bits in 0..64u8 {
                for announced in if bits & 8 != 0 { &announced[..] } else { &announced[..1] } {
                    moves.push(Move {
                        own,
                        online: bits & 1 != 0,
                        frontend,
                        finish: [None, None, Some(false), Some(true)][usize::from(bits >> 1 & 3)],
                        not_now: bits & 32 != 0,
                        overdue: bits & 4 != 0,
                        condemn: bits & 16 != 0,
                        stop: bits & 48 == 48,
                        grow: bits & 36 == 4,
                        retry: bits & 16 != 0,
                        announced: *announced,
                        overtake: bits & 32 != 0,
                    });
                }
            }
        }
    }
    moves
}

#[test]
fn every_reachable_state_when_anything_happens_then_the_rules_hold_and_removal_ends_closed() {
    let moves = moves();
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        world.remove();
        for m in &moves {
            let mut next = world;
            next.make(*m);
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    assert!(seen.len() > 100, "{} states reached", seen.len());
}

fn arbitrary_move() -> impl Strategy<Value = Move> {
    let state = || proptest::sample::select(XenbusState::ALL.to_vec());
    let own = proptest::option::weighted(0.3, proptest::option::weighted(0.9, state()));
    let rare = || proptest::bool::weighted(0.05);
    let finish = proptest::option::weighted(0.6, proptest::bool::weighted(0.8));
    (own, proptest::bool::weighted(0.9), state(), finish, rare(), rare(), rare(), rare()).prop_map(
        |(own, online, frontend, finish, condemn, stop, retry, overtake)| Move {
            own,
            online,
            frontend,
            finish,
            not_now: overtake,
            overdue: retry,
            condemn,
            stop,
            grow: retry,
            retry,
            announced: Announced::Done,
            overtake,
        },
    )
}

proptest! {
    #[test]
    fn machine_when_driven_arbitrarily_then_the_rules_hold_and_removal_ends_closed(
        moves in proptest::collection::vec(arbitrary_move(), 0..60)
    ) {
        let mut world = World::new();
        for m in moves {
            world.make(m);
        }
        world.remove();
    }
}

fn step(world: &mut World, frontend: XenbusState) {
    let m = calm(frontend);
    world.make(m);
    // Every helper finishes well.
    for _ in 0..3 {
        world.make(Move { finish: Some(true), ..m });
    }
}

#[test]
fn frontend_when_it_connects_closes_and_comes_back_then_each_state_follows() {
    let mut world = World::new();
    for _ in 0..3 {
        for (frontend, own, live) in [
            (Initialising, InitWait, false),
            (Initialised, Connected, true),
            (Connected, Connected, true),
            (Closing, Closing, true),
            (Closed, Closed, false),
        ] {
            step(&mut world, frontend);
            assert_eq!((world.own, world.live), (Some(own), live), "frontend {frontend}");
        }
    }
}

#[test]
fn frontend_when_connected_before_the_backend_came_then_is_served() {
    let mut world = World::new();
    step(&mut world, Connected);
    assert_eq!((world.own, world.live), (Some(Connected), true));
}

#[test]
fn frontend_when_it_vanishes_then_the_connection_ends_and_a_new_one_is_served() {
    let mut world = World::new();
    step(&mut world, Initialised);
    step(&mut world, Unknown);
    assert_eq!((world.own, world.live), (Some(Closed), false));
    step(&mut world, Initialising);
    step(&mut world, Initialised);
    assert_eq!((world.own, world.live), (Some(Connected), true));
}

#[test]
fn frontend_when_it_jumps_to_initialised_after_closed_then_is_not_served() {
    // Its ring may be the old one.
    let mut world = World::new();
    for frontend in [Initialised, Closed, Initialised] {
        step(&mut world, frontend);
    }
    assert_eq!((world.own, world.live), (Some(Closed), false));
}

#[test]
fn directory_when_made_anew_under_a_connection_then_it_is_served_anew() {
    let mut world = World::new();
    step(&mut world, Initialised);
    world.own = Some(Initialising);
    step(&mut world, Initialising);
    assert_eq!((world.own, world.live), (Some(InitWait), false));
}

#[test]
fn toolstack_when_it_asks_to_close_then_the_frontend_has_its_chance() {
    let mut world = World::new();
    step(&mut world, Connected);
    world.own = Some(Closing);
    for frontend in [Connected, Closing] {
        step(&mut world, frontend);
        assert_eq!((world.own, world.live), (Some(Closing), true));
    }
    step(&mut world, Closed);
    assert_eq!((world.own, world.live), (Some(Closed), false));
}

#[test]
fn toolstack_when_the_frontend_does_not_even_answer_then_the_connection_ends() {
    let mut world = World::new();
    step(&mut world, Connected);
    world.own = Some(Closing);
    let m = Move { online: false, overdue: true, ..calm(Closing) };
    world.make(m);
    assert!(world.live, "a frontend that answers has its disk in use");
    world.make(Move { frontend: Connected, ..m });
    world.make(Move { frontend: Connected, finish: Some(true), ..m });
    assert_eq!((world.own, world.live), (Some(Closed), false));
}

#[test]
fn disk_when_refused_then_it_reaches_initwait_and_never_connects() {
    let mut world = World::new();
    let m = Move { finish: Some(false), ..calm(Initialised) };
    for _ in 0..4 {
        world.make(m);
    }
    assert_eq!((world.own, world.live, world.job), (Some(InitWait), false, None));
}

#[test]
fn connection_when_another_run_left_it_without_a_record_then_is_closed_and_comes_back_by_the_normal_way() {
    let mut world = World::new();
    world.own = Some(Connected);
    let m = calm(Connected);
    world.make(m);
    assert_eq!(world.job, Some(Job::Open));
    world.make(Move { finish: Some(false), ..m });
    assert_eq!((world.own, world.live), (Some(Closing), false));
    step(&mut world, Connected);
    assert_eq!((world.own, world.live), (Some(Closing), false), "the old ring must not be served");
    for (frontend, own) in [(Closed, Closed), (Initialising, InitWait), (Initialised, Connected)] {
        step(&mut world, frontend);
        assert_eq!(world.own, Some(own));
    }
}

#[test]
fn stop_when_connected_then_the_state_stays_and_nothing_new_starts() {
    let mut world = World::new();
    step(&mut world, Connected);
    world.machine.stop();
    step(&mut world, Connected);
    assert_eq!((world.own, world.live), (Some(Connected), false));
    assert!(world.machine.settled() && world.machine.is_suspended());
}

#[test]
fn disk_when_it_grows_while_connected_then_the_frontend_is_told_and_else_nothing_is_done() {
    let mut world = World::new();
    let grow = Move { grow: true, ..calm(Connected) };
    world.make(Move { frontend: Initialising, ..grow });
    assert_ne!(world.job, Some(Job::Grow));
    step(&mut world, Connected);
    world.make(grow);
    assert_eq!((world.job, world.live), (Some(Job::Grow), true));
    assert!(world.machine.serves() && world.machine.holds());
    // Whatever comes meanwhile waits for the helper.
    world.own = Some(Closing);
    world.make(Move { frontend: Closed, condemn: true, ..calm(Connected) });
    assert_eq!(world.job, Some(Job::Grow));
    world.make(Move { frontend: Closed, finish: Some(true), ..calm(Connected) });
    assert_eq!((world.job, world.live), (Some(Job::Drain), false));
}
