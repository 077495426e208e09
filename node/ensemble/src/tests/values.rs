//! Values that only the store has.

use super::repair::{data, start_on_disk};
use super::{SOON, ask, config, create, frame, new_session};
use crate::config::{Admission, ServerConfig};
use std::time::Instant;

const VALUES: usize = 20;

fn value(number: usize) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); 500]
}

#[test]
fn values_are_read_from_the_store_when_there_is_no_memory_for_them_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir.path().join("data"));
    config.tuning.value_bytes = Some(1000);
    let server = start_on_disk(config.clone()).unwrap();
    assert!(server.wait_until_serving(SOON));
    let mut client = new_session(server.addresses().client);
    for number in 0..VALUES {
        let path = format!("/n{number}");
        assert_eq!(create(&mut client, &path, 0), 0);
        let any_version = (-1_i32).to_be_bytes();
        assert_eq!(ask(&mut client, 5, &path, &[&frame(&value(number))[..], &any_version].concat()), 0);
    }
    assert!(server.wait_until(SOON, |now| (1..=1000).contains(&now.gauges.values_here)));
    let deadline = Instant::now() + SOON;
    while server.snapshot().gauges.cold_reads < 2 * VALUES as u64 {
        (0..VALUES).for_each(|number| assert_eq!(data(&mut client, &format!("/n{number}")), value(number)));
        assert!(Instant::now() < deadline, "{:?}", server.snapshot());
    }
    server.shutdown();
    server.join().unwrap();
    let server = start_on_disk(ServerConfig { admission: Admission::MemberOnly, ..config }).unwrap();
    assert!(server.wait_until_serving(SOON));
    assert!(server.snapshot().gauges.values_here <= 1000);
    let mut client = new_session(server.addresses().client);
    (0..VALUES).for_each(|number| assert_eq!(data(&mut client, &format!("/n{number}")), value(number)));
    assert!(server.wait_until(SOON, |now| now.gauges.cold_reads > 0));
}
