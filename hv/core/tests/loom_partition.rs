//! A model of a partition's end, checked by loom.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p partita-core --release --test loom_partition`.

#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use partita_core::partition::{PartitionLife, PartitionState};

/// Two vCPUs end a partition at once while the housekeeping core looks: one wins, and whoever sees the end sees the
/// winner's cause and detail.
#[test]
fn one_end_wins_and_is_seen_whole() {
    loom::model(|| {
        let life = Arc::new(PartitionLife::new());
        assert!(life.begin());
        let finisher = {
            let life = life.clone();
            thread::spawn(move || life.finish(7))
        };
        let stopper = {
            let life = life.clone();
            thread::spawn(move || life.stop(3, 9))
        };
        let ends = [PartitionState::Ended(7), PartitionState::Stopped { cause: 3, detail: 9 }];
        let seen = life.state();
        assert!(seen == PartitionState::Running || ends.contains(&seen), "{seen:?}");
        let (finished, stopped) = (finisher.join().unwrap(), stopper.join().unwrap());
        assert!(finished != stopped);
        assert_eq!(life.state(), ends[usize::from(stopped)]);
    });
}
