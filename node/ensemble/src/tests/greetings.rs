//! Hellos that reach the wrong member.

use super::{QUICK, SOON, ensemble, exchange};
use crate::frames::peer_header;
use crate::hello::{Greeting, Hello, Id128, VERSIONS};
use pharos_paxos::{ConfigNo, MemberId};
use pharos_replica::{Lane, Levels};

/// A new member may have the address of a lost one, whom others still dial there.
#[test]
fn a_hello_that_is_meant_for_another_member_leaves_the_link_of_its_sender_alone() {
    let (_dir, members) = ensemble(2, QUICK);
    let linked = |now: &crate::Snapshot| now.status.peers.iter().all(|peer| peer.connected);
    assert!(members[0].wait_until(SOON, linked));
    let (ours, theirs) = (members[0].snapshot(), members[1].snapshot());
    let broken = ours.gauges.counters.links_broken;
    let greet = |meant: u32| {
        let hello = Greeting::Hello(Hello {
            versions: VERSIONS,
            cluster: ours.identity.cluster_id.unwrap().0,
            generation: 1,
            founding: ours.status.membership.clone().unwrap().founding_digest.0,
            config: ConfigNo(1),
            member: MemberId(2),
            volume: theirs.identity.volume.0,
            boot: 99,
            link: 1,
            lane: Lane::Control,
            meant: MemberId(meant),
            levels: Levels::KNOWN,
            level: None,
        });
        let body = hello.encode();
        exchange(members[0].addresses().peer, &[&peer_header(&body)[..], &body].concat())
    };
    let answer = greet(7);
    let why = "member 1 answered at the address of member 7";
    assert_eq!(Greeting::decode(&answer[8..]), Ok(Greeting::Refused(why.to_owned())));
    assert_eq!(members[0].snapshot().gauges.counters.links_broken, broken);
    // One that is meant for it comes from a process that was started anew, for all it knows.
    greet(1);
    assert!(members[0].wait_until(SOON, |now| now.gauges.counters.links_broken > broken));
    assert!(members[0].wait_until(SOON, linked), "and its true peer dials again");
    assert_eq!(Id128([5; 16]), ours.identity.cluster_id.unwrap().0);
}
