//! Makes a history that fails shorter, as long as it fails.

use super::Outcome;

/// Histories that are tried at most.
const MOST_TRIES: usize = 400;

/// The shortest history found that fails, and how it does.
pub async fn shrink<Op: Clone, F: Future<Output = Outcome<()>>>(
    ops: Vec<Op>,
    why: String,
    play: impl Fn(Vec<Op>) -> F,
) -> (Vec<Op>, String) {
    let (mut ops, mut why) = (ops, why);
    let mut tries = 0;
    let mut size = ops.len().div_ceil(2);
    loop {
        let mut shorter = false;
        let mut end = ops.len();
        // From the end on: what came after the failure goes first.
        while end > 0 && tries < MOST_TRIES {
            let start = end.saturating_sub(size);
            let mut fewer = ops.clone();
            fewer.drain(start..end);
            tries += 1;
            if let Err(e) = play(fewer.clone()).await {
                (ops, why) = (fewer, e.0);
                shorter = true;
            }
            end = start;
        }
        if tries >= MOST_TRIES || size == 1 && !shorter {
            return (ops, why);
        }
        size = if shorter { size } else { size.div_ceil(2) }.min(ops.len().max(1));
    }
}
