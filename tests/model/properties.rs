//! What must hold in every state, and what must be possible at all.

use stateright::Property;

use super::rules::Size;
use super::world::{Phase, Side, World};

/// No two clients use the resource at the same moment.
pub const EXCLUSIVE: &str = "exclusive";
/// What is used is on the books, for that client, under that fence. Stronger than exclusive.
pub const COVERED: &str = "what is used is on the books";
/// No grant has a fence that is not above every one before.
pub const FENCE_GROWS: &str = "fence grows";
/// Of several that use it, the one on the books has the highest fence: a resource that compares
/// fences serves nobody else. Holds also where a whole machine stood still, and exclusive does not.
pub const FENCE_TELLS: &str = "the highest fence is the holder's";
/// What nobody was heard of for longer than was promised is not kept: asked where the broker is
/// prompt.
pub const COMES_BACK: &str = "comes back";

pub const ALWAYS: [&str; 5] = [EXCLUSIVE, COVERED, FENCE_GROWS, FENCE_TELLS, COMES_BACK];

/// The resource is granted a second time.
pub const GRANTED_TWICE: &str = "granted twice";
/// It is used by one while another is gone that used it before.
pub const PASSED_ON: &str = "passed on from the dead";
/// A lease is on the books since before a restart, in use, and its client is back.
pub const SURVIVES: &str = "survives a restart";
/// The same, and it counts by the longer promise.
pub const LONGER: &str = "works through a planned stop";
/// Use went on while the lease was ending.
pub const ENDS_SLOWLY: &str = "ends with notice";

/// The properties that a size is checked for.
pub fn of(size: &Size) -> Vec<Property<Size>> {
    let mut all = all();
    if size.fences_only {
        all.retain(|property| ![EXCLUSIVE, COVERED].contains(&property.name));
    }
    all
}

fn all() -> Vec<Property<Size>> {
    vec![
        Property::always(EXCLUSIVE, |_, world: &World| users(world).count() <= 1),
        Property::always(COVERED, |_, world: &World| users(world).all(|(fence, side)| on_books(side) == Some(fence))),
        Property::always(FENCE_GROWS, |_, world: &World| !world.fence_fell),
        Property::always(FENCE_TELLS, |_, world: &World| {
            world.sides.iter().filter_map(on_books).all(|fence| fence == world.highest)
                && users(world).all(|(fence, side)| on_books(side) == Some(fence) || !heeded(world, fence))
        }),
        Property::always(COMES_BACK, |size, world: &World| {
            !size.prompt || world.sides.iter().all(|side| !side.books.open || !side.presence.is_overdue(size))
        }),
        Property::sometimes(GRANTED_TWICE, |_, world: &World| world.highest >= 2),
        Property::sometimes(PASSED_ON, |_, world: &World| {
            let gone = world.sides.iter().any(|side| side.client.phase == Phase::Over);
            gone && world.highest >= 2 && users(world).next().is_some()
        }),
        Property::sometimes(SURVIVES, |_, world: &World| users(world).any(|(_, side)| is_back(side))),
        Property::sometimes(LONGER, |_, world: &World| {
            users(world).any(|(_, side)| side.client.newest.long && side.books.lease.is_some_and(|lease| lease.kept))
        }),
        Property::sometimes(ENDS_SLOWLY, |_, world: &World| {
            users(world).any(|(_, side)| side.presence.ending.is_some_and(|since| since > 0))
        }),
    ]
}

fn users(world: &World) -> impl Iterator<Item = (u8, &Side)> {
    world.sides.iter().filter_map(|side| Some((side.client.uses()?, side)))
}

fn on_books(side: &Side) -> Option<u8> {
    side.books.lease.map(|lease| lease.fence)
}

/// Whether a resource that has seen a holder's fence still heeds this one.
fn heeded(world: &World, fence: u8) -> bool {
    world.sides.iter().filter_map(on_books).any(|holder| holder <= fence)
}

fn is_back(side: &Side) -> bool {
    let up = side.client.phase == Phase::Up && side.presence.socket == Some(0);
    up && side.books.lease.is_some_and(|lease| lease.kept)
}
