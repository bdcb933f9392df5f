//! A few things by their keys.

/// Most graphs that are kept: guided and unguided passes, of full batches and of a last one.
const MOST_LARGE: usize = 4;
/// Most keys that anything is known of.
const MOST: usize = 64;

/// Things by their keys, in the order in which they were asked for. A few of them are large; for one more, the one that was asked
/// for longest ago is dropped.
#[derive(Debug)]
pub(crate) struct Shelf<K, T> {
    things: Vec<(K, T)>,
    is_large: fn(&T) -> bool,
}

impl<K: PartialEq, T> Shelf<K, T> {
    pub(crate) fn new(is_large: fn(&T) -> bool) -> Self {
        Self { things: Vec::new(), is_large }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&mut T> {
        let place = self.things.iter().position(|(other, _)| other == key)?;
        self.things[place..].rotate_left(1);
        self.things.last_mut().map(|(_, thing)| thing)
    }

    /// In place of what the key had.
    pub(crate) fn put(&mut self, key: K, thing: T) {
        self.things.retain(|(other, _)| *other != key);
        if (self.is_large)(&thing) {
            self.make_room();
        }
        if self.things.len() == MOST {
            self.things.remove(0);
        }
        self.things.push((key, thing));
    }

    /// For a large one.
    pub(crate) fn make_room(&mut self) {
        while self.large() >= MOST_LARGE {
            let oldest = self.things.iter().position(|(_, thing)| (self.is_large)(thing));
            self.things.remove(oldest.expect("there are several"));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.things.clear();
    }

    /// Large ones.
    pub(crate) fn large(&self) -> usize {
        self.things.iter().filter(|(_, thing)| (self.is_large)(thing)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(shelf: &Shelf<u32, bool>) -> Vec<u32> {
        shelf.things.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn the_large_one_that_was_asked_for_longest_ago_makes_room() {
        let mut shelf = Shelf::new(|large: &bool| *large);
        shelf.put(0, false);
        (1..=4).for_each(|key| shelf.put(key, true));
        assert_eq!(keys(&shelf), [0, 1, 2, 3, 4]);
        assert_eq!((shelf.get(&1).copied(), shelf.get(&9)), (Some(true), None));
        shelf.put(5, true);
        assert_eq!(keys(&shelf), [0, 3, 4, 1, 5], "2 was asked for before 1");
        shelf.make_room();
        assert_eq!(keys(&shelf), [0, 4, 1, 5]);
        // In its own place.
        shelf.put(5, false);
        shelf.put(6, true);
        assert_eq!(keys(&shelf), [0, 4, 1, 5, 6]);
        assert_eq!(shelf.large(), 3);
        shelf.clear();
        assert_eq!(shelf.large() + keys(&shelf).len(), 0);
    }

    #[test]
    fn small_ones_are_not_kept_without_end() {
        let mut shelf = Shelf::new(|large: &bool| *large);
        (0..100).for_each(|key| shelf.put(key, false));
        assert_eq!(keys(&shelf), (36..100).collect::<Vec<_>>());
    }
}
