//! Batches of pictures, read and decoded on a thread of their own while the network computes.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use tch::Tensor;

use crate::{Error, Pictures};

/// Batches that are decoded ahead.
const AHEAD: usize = 2;

/// What the reading thread says: the bytes of the next batch, or why there are none.
type Read = Result<Vec<u8>, Error>;

/// Takes a batch: which pictures they are, and uint8 (N, H, W, 3).
pub(crate) type Take<'a> = &'a mut dyn FnMut(Range<usize>, &Tensor) -> Result<(), Error>;

/// Calls `each` with every batch of `ranges`, in order. No batch crosses the end of a range; all but the last
/// of a range are of `batch_size`.
///
/// # Errors
/// Whatever reading meets and `each` returns; [`Error::ReaderEnded`].
pub(crate) fn for_each_batch(
    pictures: &Pictures,
    ranges: &[Range<usize>],
    batch_size: usize,
    each: Take,
) -> Result<(), Error> {
    thread::scope(|scope| {
        let (send, receive) = sync_channel(AHEAD);
        let reader = scope.spawn(move || send_batches(pictures, ranges, batch_size, &send));
        let taken = take_batches(pictures, ranges, batch_size, receive, each);
        match reader.join() {
            Ok(()) => taken,
            // It has panicked, and said where.
            Err(_) => Err(Error::ReaderEnded),
        }
    })
}

/// The batches of `ranges`, one after the other.
fn batches_of(ranges: &[Range<usize>], batch_size: usize) -> impl Iterator<Item = Range<usize>> {
    ranges.iter().flat_map(move |range| {
        let end = range.end;
        range.clone().step_by(batch_size).map(move |start| start..end.min(start + batch_size))
    })
}

/// The reading thread. It ends with the pictures, with the first error, or when nobody takes them any more.
fn send_batches(pictures: &Pictures, ranges: &[Range<usize>], batch_size: usize, send: &SyncSender<Read>) {
    let mut open = None;
    for batch in batches_of(ranges, batch_size) {
        // What follows on what was read is not looked for again.
        let reader = match open.take() {
            Some((at, reader)) if at == batch.start => Ok(reader),
            _ => pictures.reader(batch.start),
        };
        let read = reader.and_then(|mut reader| {
            let bytes = reader.next_batch(batch.len())?;
            open = Some((batch.end, reader));
            Ok(bytes)
        });
        let failed = read.is_err();
        if send.send(read).is_err() || failed {
            return;
        }
    }
}

fn take_batches(
    pictures: &Pictures,
    ranges: &[Range<usize>],
    batch_size: usize,
    receive: Receiver<Read>,
    each: Take,
) -> Result<(), Error> {
    for batch in batches_of(ranges, batch_size) {
        let bytes = receive.recv().map_err(|_| Error::ReaderEnded)??;
        let shape = [batch.len() as i64, pictures.height() as i64, pictures.width() as i64, 3];
        each(batch, &Tensor::f_from_slice(&bytes)?.f_view(shape)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ranges: &[Range<usize>], batch_size: usize, expected: &[Range<usize>]) {
        assert_eq!(batches_of(ranges, batch_size).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_batch_crosses_the_end_of_a_range() {
        check(&[], 3, &[]);
        check(&[0..6, 9..9], 3, &[0..3, 3..6]);
        check(&[0..4, 8..10], 3, &[0..3, 3..4, 8..10]);
        check(&[0..4, 4..6], 10, &[0..4, 4..6]);
    }
}
