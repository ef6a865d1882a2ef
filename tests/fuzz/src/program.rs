//! What a program says that stays between jobs. In which pieces it comes makes no difference.

use svcmap::exec::frames::{Answer, Answering, FrameError, Incoming};

use crate::memory::bounded;

/// Largest result that is taken.
const RESULT_BYTES_MAX: usize = 100;

/// Room for what is read, and some texts.
const TIMES: usize = 64;

/// All that it says of jobs 1, 2, …, and why no more is read.
type Said = (Vec<String>, Vec<Answer>, Option<FrameError>);

/// The stream of a program, the first byte of which says in how large pieces it is read.
pub(crate) fn read(input: &[u8]) {
    let [piece, stream @ ..] = input else { return };
    let (whole, pieces) = (said(stream, stream.len()), said(stream, usize::from(*piece)));
    // Of progress it is the newest that counts.
    assert_eq!((&whole.1, &whole.2), (&pieces.1, &pieces.2));
    for answer in whole.1 {
        if let Answer::Done(result) = answer {
            assert!(result.len() <= RESULT_BYTES_MAX);
        }
    }
}

fn said(stream: &[u8], piece: usize) -> Said {
    let mut incoming = Incoming::default();
    let mut said = Said::default();
    let mut answering = None;
    for piece in stream.chunks(piece.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            let room = incoming.room();
            let count = rest.len().min(room.len());
            assert!(count > 0, "no room is made");
            let (now, later) = rest.split_at(count);
            room[..count].copy_from_slice(now);
            incoming.add(count);
            rest = later;
            let advanced =
                bounded(stream.len(), TIMES, || advance(&mut incoming, &mut answering, &mut said));
            if let Err(error) = advanced {
                let _ = error.to_string();
                said.2 = Some(error);
                return said;
            }
        }
    }
    said
}

/// Takes all that has come.
fn advance(
    incoming: &mut Incoming,
    answering: &mut Option<Answering>,
    (progress, answers, _): &mut Said,
) -> Result<(), FrameError> {
    let job = |answers: &Vec<Answer>| Answering::new(answers.len() as u64 + 1, RESULT_BYTES_MAX);
    if answering.is_none() && incoming.is_ready()? {
        *answering = Some(job(answers));
    }
    while let Some(current) = answering {
        let answer = current.advance(incoming)?;
        progress.extend(current.take_progress());
        let Some(answer) = answer else { break };
        answers.push(answer);
        *current = job(answers);
    }
    Ok(())
}
