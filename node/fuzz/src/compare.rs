//! Whether two states are the same, read node by node as a client would: the digest may have overlooked something.

use bytes::Bytes;
use pharos_znode::{Id, State};
use std::collections::BTreeMap;

/// What a store would hold of a state.
#[derive(Debug, Default)]
pub(crate) struct Store(pub(crate) BTreeMap<Bytes, Bytes>);

impl Store {
    /// Takes over what has changed.
    pub(crate) fn flush(&mut self, state: &mut State) {
        for (key, value) in state.take_dirty().to_pairs() {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    pub(crate) fn load(&self) -> State {
        let rows = self.0.iter().map(|(key, value)| (key.clone(), value.clone()));
        State::from_rows(rows).expect("a state reads its own rows back")
    }
}

pub(crate) fn assert_same(left: &State, right: &State) {
    assert_eq!((left.zxid(), left.time_ms()), (right.zxid(), right.time_ms()));
    assert_eq!((left.settings(), left.node_count()), (right.settings(), right.node_count()));
    assert_eq!(left.ephemeral_count(), right.ephemeral_count());
    assert_eq!(left.data_bytes(), right.data_bytes());
    assert_eq!(left.level(), right.level());
    let later = left.time_ms().saturating_add(1000);
    assert_eq!(sorted(left.expendable(later)), sorted(right.expendable(later)));
    assert!(left.sessions().eq(right.sessions()), "the sessions differ");
    for (id, _) in left.sessions() {
        assert_eq!(sorted(left.ephemerals(id, None)), sorted(right.ephemerals(id, None)));
    }
    assert_eq!(left.digest(), left.recompute_digest(), "the digest is maintained");
    assert_eq!(right.digest(), right.recompute_digest(), "the digest is maintained");
    assert_eq!(left.digest(), right.digest());
    let mut paths = vec!["/".to_owned()];
    while let Some(path) = paths.pop() {
        assert_same_node(left, right, &path);
        let auth = [Id::new("super", "")];
        let names = |state: &State| {
            let children = state.children(&path, &auth).expect("a node that its parent lists");
            sorted(children.names.map(str::to_owned).collect())
        };
        let names = (names(left), names(right));
        assert_eq!(names.0, names.1, "children of {path}");
        let base = if path == "/" { "" } else { &path };
        paths.extend(names.0.into_iter().map(|name| format!("{base}/{name}")));
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn assert_same_node(left: &State, right: &State, path: &str) {
    assert_eq!(left.stat(path), right.stat(path), "stat of {path}");
    assert_eq!(left.acl(path), right.acl(path), "list of {path}");
    let auth = [Id::new("super", "")];
    let data = |state: &State| state.get_data(path, &auth).map(|node| node.data.here().map(<[u8]>::to_vec));
    assert_eq!(data(left), data(right), "data of {path}");
}
