//! Request bodies that are replayed, read in any order, by a script.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use crate::retry::replay_body::{Allowance, BodyLimits, RequestBody};

/// What all bodies may take up.
const ALLOWED: u64 = 2048;

/// Input: how the source tells its length and its end, the limit, the number of its steps, a byte for each of these, and
/// then a byte for each thing that is done with the body.
///
/// Every attempt gives the frames of the source from the first one on, and ends only behind the last. It fails only if it
/// was taken over, and it is woken for that, or where its source failed or gave another length than it announced. A body of which nothing can be made any more is still read to its end. All
/// that was taken of the allowance is given back.
pub fn replay_body(data: &[u8]) {
    let mut script = data.iter().copied();
    let mut next = || script.next();
    let (Some(manner), Some(limit), Some(steps)) = (next(), next(), next()) else { return };
    let source = Source::new(manner, (0..steps % 16).map_while(|_| next()));
    let allowance = Arc::new(Allowance::new(if manner & 8 == 0 { ALLOWED } else { 300 }));
    let limits = BodyLimits {
        exact: u64::from(limit),
        in_memory: u64::from(limit),
        stream: u64::from(limit),
        is_grpc: &|| false,
        allowance: (manner & 16 == 0).then_some(&allowance),
    };
    let mut run = Run::new(source, limits);
    for act in script {
        run.act(act);
    }
    run.finish();
    drop(run);

    // A body that takes up all of it can be recorded only if all of it is there.
    let all = if manner & 8 == 0 { ALLOWED } else { 300 };
    let full = Source { told: Told::Length(all), ..Source::new(1, [8, 8].into_iter()) };
    let limits = BodyLimits { exact: all, in_memory: all, stream: all, is_grpc: &|| false, allowance: Some(&allowance) };
    assert_eq!(RequestBody::recording(full, limits).replayable(), Ok(()), "something was not given back");
}

/// A body by a script. It panics when it is polled after its end.
struct Source {
    steps: VecDeque<Step>,
    told: Told,
    tells_end: bool,
    over: bool,
}

#[derive(Clone, PartialEq)]
enum Step {
    Data(Bytes),
    Trailers(u16),
    Pending,
    Broken,
}

#[derive(Clone, Copy)]
enum Told {
    Nothing,
    Truth,
    Length(u64),
}

impl Source {
    fn new(manner: u8, steps: impl Iterator<Item = u8>) -> Self {
        let steps: VecDeque<Step> = steps
            .enumerate()
            .map(|(at, byte)| match byte & 7 {
                // Every byte of all frames differs from its neighbours, so that no mistake goes unseen.
                0..=3 => {
                    let first = (at * 32) as u8;
                    Step::Data((0..byte >> 3).map(|by| first.wrapping_add(by)).collect())
                }
                4 => Step::Trailers(at as u16),
                5 if byte & 8 == 0 => Step::Broken,
                5..=7 => Step::Pending,
                8.. => unreachable!(),
            })
            .collect();
        let told = match manner & 3 {
            0 => Told::Nothing,
            1 | 2 => Told::Truth,
            // A lie: more may come than was said, and less.
            _ => Told::Length(u64::from(manner >> 5) * 8),
        };
        Self { steps, told, tells_end: manner & 4 != 0, over: false }
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let this = self.get_mut();
        assert!(!this.over, "polled after its end");
        Poll::Ready(match this.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(number)) => Some(Ok(Frame::trailers(trailers(number)))),
            Some(Step::Pending) => return Poll::Pending,
            Some(Step::Broken) => {
                this.over = true;
                Some(Err("the disk is gone"))
            }
            None => {
                this.over = true;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.tells_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.told {
            Told::Nothing => SizeHint::new(),
            Told::Truth => SizeHint::with_exact(length(self.steps.iter())),
            Told::Length(length) => SizeHint::with_exact(length),
        }
    }
}

fn trailers(number: u16) -> HeaderMap {
    HeaderMap::from_iter([(http::header::TRAILER, HeaderValue::from(number))])
}

fn length<'a>(steps: impl Iterator<Item = &'a Step>) -> u64 {
    let length = |step: &Step| if let Step::Data(data) = step { data.len() } else { 0 };
    steps.map(length).sum::<usize>() as u64
}

/// The bodies that are in use, and what they must give.
struct Run {
    original: Option<Reader>,
    attempts: Vec<Reader>,
    /// The frames of the source, up to its end or its failure.
    frames: Vec<Step>,
    fails: bool,
    honest: bool,
}

struct Reader {
    body: RequestBody<Source>,
    /// How many frames it gave.
    given: usize,
    waits: bool,
    taken_over: bool,
    bell: Arc<Bell>,
    done: bool,
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Run {
    fn new(source: Source, limits: BodyLimits<'_>) -> Self {
        let until_broken = || source.steps.iter().take_while(|step| **step != Step::Broken);
        let frames = until_broken().filter(|step| **step != Step::Pending).cloned().collect();
        let fails = until_broken().count() < source.steps.len();
        let honest = !matches!(source.told, Told::Length(_));
        let original = Some(Reader::new(RequestBody::recording(source, limits)));
        Self { original, attempts: Vec::new(), frames, fails, honest }
    }

    fn act(&mut self, act: u8) {
        let which = usize::from(act >> 3);
        match act & 7 {
            0..=2 => self.poll_newest(),
            3 => {
                if !self.attempts.is_empty() {
                    let which = which % self.attempts.len();
                    self.poll(which);
                }
            }
            4 | 5 => self.replay(),
            6 if which == 0 => self.original = None,
            6 => {
                // Nobody else has one yet: it is itself the first attempt.
                if self.attempts.is_empty()
                    && let Some(original) = &mut self.original
                {
                    original.poll(&self.frames, self.fails, self.honest);
                }
            }
            7 => {
                if !self.attempts.is_empty() {
                    let which = which % self.attempts.len();
                    self.attempts.remove(which);
                }
            }
            8.. => unreachable!(),
        }
    }

    fn poll(&mut self, which: usize) {
        self.attempts[which].poll(&self.frames, self.fails, self.honest);
    }

    fn poll_newest(&mut self) {
        match (self.attempts.len(), &mut self.original) {
            (0, Some(original)) => original.poll(&self.frames, self.fails, self.honest),
            (0, None) => {}
            (attempts, _) => self.poll(attempts - 1),
        }
    }

    fn replay(&mut self) {
        let Some(original) = &mut self.original else { return };
        let promised = original.body.replayable();
        match original.body.replay() {
            Ok(body) => {
                assert_eq!(promised, Ok(()));
                for reader in self.attempts.iter_mut().chain([original]) {
                    if reader.waits {
                        assert!(reader.bell.0.load(Ordering::Relaxed) > 0, "it waits and was not woken");
                    }
                    reader.taken_over = true;
                }
                self.attempts.push(Reader::new(body));
            }
            Err(why) => assert_eq!(promised, Err(why)),
        }
    }

    /// Reads the newest attempt to its end.
    fn finish(&mut self) {
        self.replay();
        let reader = match self.attempts.last_mut() {
            // The newest attempt may have been dropped: then what is left was taken over.
            Some(newest) => Some(newest),
            None => self.original.as_mut(),
        };
        let Some(reader) = reader else { return };
        for _ in 0..64 {
            reader.poll(&self.frames, self.fails, self.honest);
        }
        assert!(reader.done, "it does not end");
    }
}

impl Reader {
    fn new(body: RequestBody<Source>) -> Self {
        Self { body, given: 0, waits: false, taken_over: false, bell: Arc::default(), done: false }
    }

    fn poll(&mut self, frames: &[Step], fails: bool, honest: bool) {
        if self.done {
            return;
        }
        let left = &frames[self.given..];
        if self.body.is_end_stream() {
            assert!(left.is_empty() && !fails, "it says that it is over");
        }
        if honest && !fails && !self.taken_over {
            let (hint, left) = (self.body.size_hint(), length(left.iter()));
            assert!(hint.lower() <= left && hint.upper().is_none_or(|upper| upper >= left), "{hint:?}");
        }
        self.bell = Arc::default();
        let waker = Waker::from(Arc::clone(&self.bell));
        let polled = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker));
        self.waits = polled.is_pending();
        let given = match polled {
            Poll::Pending => return,
            Poll::Ready(None) => {
                assert!(left.is_empty() && !fails, "an end that looks complete");
                self.done = true;
                return;
            }
            Poll::Ready(Some(Err(error))) => {
                let is_taken_over = error.to_string().contains("newer attempt");
                // Less than was announced is no whole body either.
                let may_fail = left.is_empty() && (fails || !honest);
                assert!(if is_taken_over { self.taken_over } else { may_fail }, "{error}");
                self.done = true;
                return;
            }
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        match (left.first(), given.data_ref(), given.trailers_ref()) {
            (Some(Step::Data(data)), Some(given), _) => assert_eq!(data, given),
            (Some(Step::Trailers(number)), _, Some(given)) => assert_eq!(&trailers(*number), given),
            _ => panic!("another frame than that of the source"),
        }
        self.given += 1;
    }
}
