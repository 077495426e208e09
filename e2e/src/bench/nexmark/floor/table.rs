//! A hash table with the values beside the keys' order: open addressing, for keys above zero.

/// Values by key.
pub(super) struct Table<V> {
    /// Zero where there is none.
    keys: Vec<u64>,
    values: Vec<V>,
    len: usize,
}

impl<V: Copy + Default> Table<V> {
    /// With room for `1 << bits` entries, half of which are used before it grows.
    pub(super) fn new(bits: u32) -> Self {
        Self { keys: vec![0; 1 << bits], values: vec![V::default(); 1 << bits], len: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key, and whether it has just been put there.
    pub(super) fn entry(&mut self, key: i64) -> (&mut V, bool) {
        if self.len * 2 > self.keys.len() {
            self.grow();
        }
        let (slot, found) = self.find(key as u64);
        if !found {
            self.keys[slot] = key as u64;
            self.len += 1;
        }
        (&mut self.values[slot], !found)
    }

    pub(super) fn get_mut(&mut self, key: i64) -> Option<&mut V> {
        let (slot, found) = self.find(key as u64);
        found.then(|| &mut self.values[slot])
    }

    pub(super) fn remove(&mut self, key: i64) {
        let (mut hole, found) = self.find(key as u64);
        if !found {
            return;
        }
        let mask = self.keys.len() - 1;
        let mut slot = hole;
        loop {
            slot = (slot + 1) & mask;
            if self.keys[slot] == 0 {
                break;
            }
            // An entry may fill the hole if that is not before the place which it would like to have.
            let home = self.home(self.keys[slot]);
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(hole) & mask {
                self.keys[hole] = self.keys[slot];
                self.values[hole] = self.values[slot];
                hole = slot;
            }
        }
        self.keys[hole] = 0;
        self.values[hole] = V::default();
        self.len -= 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, V)> {
        let entries = self.keys.iter().zip(&self.values);
        entries.filter(|(key, _)| **key != 0).map(|(key, value)| (*key as i64, *value))
    }

    pub(super) fn clear(&mut self) {
        self.keys.fill(0);
        self.values.fill(V::default());
        self.len = 0;
    }

    /// Where a key is, or where it would be put.
    #[inline]
    fn find(&self, key: u64) -> (usize, bool) {
        let mask = self.keys.len() - 1;
        let mut slot = self.home(key);
        loop {
            match self.keys[slot] {
                there if there == key => return (slot, true),
                0 => return (slot, false),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    #[inline]
    fn home(&self, key: u64) -> usize {
        let hash = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (64 - self.keys.len().trailing_zeros())) as usize
    }

    fn grow(&mut self) {
        let mut larger = Self::new(self.keys.len().trailing_zeros() + 1);
        for (key, value) in self.iter() {
            *larger.entry(key).0 = value;
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pharos_crowd::Rng;

    use super::*;

    #[test]
    fn it_holds_what_a_map_holds() {
        let (mut table, mut map) = (Table::new(2), BTreeMap::new());
        let mut rng = Rng::new(1);
        for step in 0..20_000_i64 {
            let key = 1 + i64::try_from(rng.below(300)).unwrap();
            if rng.one_in(3) {
                table.remove(key);
                map.remove(&key);
            } else {
                let (value, new) = table.entry(key);
                assert_eq!(new, map.insert(key, step).is_none());
                *value = step;
            }
            assert_eq!(table.get_mut(key).copied(), map.get(&key).copied());
        }
        assert!(table.iter().collect::<BTreeMap<_, _>>() == map);
    }
}
