//! Grants and releases in a full lab: what they cost must not hang on its size.

use leasehold::core::types::{LeaseId, Value};

use super::lab::Lab;
use super::measure;

/// Of each kind; few, as callgrind takes fifty times as long.
const TIMES: usize = 60;

/// Measures a lab of so many resources, all leased, with as many claims waiting.
pub fn run(resources: usize, per_pool: usize) {
    let mut lab = Lab::of(resources, per_pool).fill(resources);
    hand_over(&mut lab);
    unwanted(&mut lab);
}

/// A release and the grant to the next waiter that it brings; then another claim queues, so that
/// as many wait as before.
fn hand_over(lab: &mut Lab) {
    let released: Vec<_> = (0..TIMES).map(|_| lab.some_lease()).collect();
    let commands: Vec<_> = released.iter().map(|(lease, session)| Lab::releasing(*lease, *session)).collect();
    let done = measure("hand-over", TIMES, || lab.all(commands));
    let granted = done.iter().filter(|(_, events, _)| events.len() > 1).count();
    assert!(granted * 2 > TIMES, "only {granted} of {TIMES} releases brought a grant");
    done.iter().for_each(|(_, events, _)| lab.note(events));
    let commands: Vec<_> = (0..TIMES)
        .map(|number| {
            let need = lab.condition(number);
            let session = lab.place_of(released[number].1);
            lab.asking(session, &need)
        })
        .collect();
    let done = measure("queue", TIMES, || lab.all(commands));
    done.iter().for_each(|(_, events, _)| lab.note(events));
}

/// Releases of what nobody wants, in a pool in which everybody waits for something else, and
/// grants of it: those who wait must not be looked at one by one.
fn unwanted(lab: &mut Lab) {
    let (session, waiters) = (lab.join(), lab.broker.state().claims.len());
    lab.declare_beside(TIMES * 3);
    let taken: Vec<_> = (0..TIMES * 3).filter_map(|_| lab.ask(session, "beside")).collect();
    let keeper = lab.session(session);
    lab.held.retain(|(_, holder)| *holder != keeper);
    for number in 0..waiters {
        let place = lab.place(number);
        lab.ask(place, "beside,os=ios");
    }
    let state = lab.broker.state();
    let android = |lease: &LeaseId| {
        let resource = state.resource(state.lease(*lease).picks[0].resource);
        resource.label("os").is_some_and(|os| os == Value::Text("android".into()))
    };
    let released: Vec<LeaseId> = taken.into_iter().filter(android).collect();
    let commands: Vec<_> = released.iter().map(|lease| Lab::releasing(*lease, keeper)).collect();
    let times = commands.len();
    let done = measure("release of what nobody wants", times, || lab.all(commands));
    assert!(done.iter().all(|(_, events, _)| events.len() == 1), "nobody waits for it");
    let commands: Vec<_> = (0..times).map(|_| lab.asking(session, "beside,os=android")).collect();
    let done = measure("grant of what nobody wants", times, || lab.all(commands));
    assert!(done.iter().all(|(_, events, _)| events.len() == 1), "all of it is free");
}
