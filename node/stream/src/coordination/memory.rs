//! Coordination and roster within one process, for tests of recovery.
//!
//! Owns: the same rules as the Ensemble's, without one.
//! Must not know: networks.
//! Invariant: clones share one state, as processes share one Ensemble.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Coordination, CoordinationError, Member, Pointer, Roster, Tenure, View, Watcher};

#[derive(Default)]
struct Shared {
    generation: u64,
    latest: Option<Pointer>,
    completed: bool,
    workers: Vec<(Member, Watcher)>,
}

impl Shared {
    fn tell(&self) {
        let members: Vec<Member> = self.workers.iter().map(|(member, _)| member.clone()).collect();
        for (member, watcher) in &self.workers {
            watcher(View { members: super::seen_by(member, &members), completed: self.completed });
        }
    }
}

/// Coordination within one process.
#[derive(Clone, Default)]
pub struct MemoryCoordination {
    shared: Arc<Mutex<Shared>>,
    generation: u64,
    id: String,
}

impl Roster for MemoryCoordination {
    fn join(&mut self, me: &Member, watcher: Watcher) -> Result<(), CoordinationError> {
        self.id.clone_from(&me.id);
        let mut shared = self.shared();
        shared.workers.push((me.clone(), watcher));
        shared.tell();
        Ok(())
    }

    fn leave(&mut self) {
        let mut shared = self.shared();
        shared.workers.retain(|(member, _)| member.id != self.id);
        shared.tell();
    }
}

impl MemoryCoordination {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leading(&self) -> Result<MutexGuard<'_, Shared>, CoordinationError> {
        let shared = self.shared();
        if shared.generation == self.generation { Ok(shared) } else { Err(CoordinationError::Fenced) }
    }
}

impl Coordination for MemoryCoordination {
    fn take_over(&mut self) -> Result<Tenure, CoordinationError> {
        let mut shared = self.shared();
        shared.generation += 1;
        let tenure = Tenure {
            generation: shared.generation,
            latest: shared.latest.clone(),
            completed: shared.completed,
        };
        drop(shared);
        self.generation = tenure.generation;
        Ok(tenure)
    }

    fn publish(&mut self, pointer: &Pointer) -> Result<(), CoordinationError> {
        self.leading()?.latest = Some(pointer.clone());
        Ok(())
    }

    fn complete(&mut self) -> Result<(), CoordinationError> {
        let mut shared = self.leading()?;
        shared.completed = true;
        shared.tell();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_took_over_last_leads() {
        let mut old = MemoryCoordination::default();
        assert_eq!(old.take_over().unwrap().generation, 1);
        let pointer = Pointer::new(1, 1, "m".to_owned(), 0);
        old.publish(&pointer).unwrap();
        let mut new = old.clone();
        let tenure = new.take_over().unwrap();
        assert_eq!(tenure, Tenure { generation: 2, latest: Some(pointer.clone()), completed: false });
        assert_eq!(old.publish(&pointer), Err(CoordinationError::Fenced));
        assert_eq!(old.complete(), Err(CoordinationError::Fenced));
        new.complete().unwrap();
        assert!(new.take_over().unwrap().completed);
    }
}
