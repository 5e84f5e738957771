//! The cache of decoded images.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::memory::Decoded;

/// Decoded images that stay from epoch to epoch. They keep their reservations in the data set's
/// budget, of which they may take up to half, so that decoding always has the other half.
#[derive(Debug)]
pub(super) struct ImageCache {
    /// The maximum number of bytes.
    most: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    images: HashMap<usize, Arc<Decoded>>,
    bytes: u64,
    is_closed: bool,
}

impl ImageCache {
    pub(super) fn new(most: u64) -> Self {
        ImageCache { most, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, even after a panic of another thread.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn get(&self, image: usize) -> Option<Arc<Decoded>> {
        self.lock().images.get(&image).cloned()
    }

    /// Adds an image if there is room.
    pub(super) fn add(&self, image: usize, mut decoded: Decoded) -> Arc<Decoded> {
        let mut state = self.lock();
        if let Some(first) = state.images.get(&image) {
            return first.clone();
        }
        let bytes = state.bytes.saturating_add(decoded.rgb().len() as u64);
        if state.is_closed || bytes > self.most || !decoded.keep() {
            return Arc::new(decoded);
        }
        state.bytes = bytes;
        let decoded = Arc::new(decoded);
        state.images.insert(image, decoded.clone());
        decoded
    }

    /// Removes all images, and adds no more: an image needs more than the other half of the budget.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        *state = State { is_closed: true, ..State::default() };
    }
}
