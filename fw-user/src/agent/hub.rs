//! Where records go: into memory, and to whoever follows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

/// Records that a slow follower may lag behind before it misses some.
const BACKLOG: usize = 4096;

/// Keeps the last records and passes new ones on.
#[derive(Debug)]
pub struct Hub<T> {
    recent: Mutex<VecDeque<Arc<T>>>,
    keep: usize,
    live: broadcast::Sender<Arc<T>>,
}

impl<T> Hub<T> {
    /// A hub that keeps the last `keep` records.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self {
            recent: Mutex::new(VecDeque::new()),
            keep,
            live: broadcast::Sender::new(BACKLOG),
        }
    }

    /// Adds a record.
    pub fn publish(&self, record: T) {
        let record = Arc::new(record);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if self.keep > 0 {
            if recent.len() == self.keep {
                recent.pop_front();
            }
            recent.push_back(Arc::clone(&record));
        }
        // Sent under the lock, so that a new follower neither misses nor repeats a record. Without followers this fails,
        // which is fine.
        let _ = self.live.send(record);
    }

    /// The records kept, the oldest first, and a receiver of all that follow them.
    #[must_use]
    pub fn subscribe(&self) -> (Vec<Arc<T>>, broadcast::Receiver<Arc<T>>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        (recent.iter().cloned().collect(), self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::Hub;

    #[test]
    fn a_follower_gets_the_last_records_and_then_each_new_one_once() {
        let hub = Hub::new(2);
        (1..=3).for_each(|number| hub.publish(number));
        let (recent, mut live) = hub.subscribe();
        assert_eq!(recent.iter().map(|number| **number).collect::<Vec<_>>(), [2, 3]);
        hub.publish(4);
        assert_eq!(*live.try_recv().unwrap(), 4);
        assert!(live.try_recv().is_err());
    }
}
