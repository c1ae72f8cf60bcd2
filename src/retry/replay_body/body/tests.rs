use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};

use super::*;

/// A body of exact length that gives its frames one by one, is pending where the script says so, and panics when it is
/// polled after its end.
struct Script {
    steps: VecDeque<Step>,
    over: bool,
    polled: Arc<AtomicUsize>,
}

#[derive(Clone)]
enum Step {
    Data(&'static str),
    Trailers(&'static str),
    Pending,
    Broken,
    /// Announced but never given.
    Missing(u64),
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), over: false, polled: Arc::default() }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let this = self.get_mut();
        assert!(!this.over, "polled after its end");
        this.polled.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(match this.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))),
            Some(Step::Trailers(value)) => Some(Ok(Frame::trailers(trailers(value)))),
            Some(Step::Pending) => return Poll::Pending,
            Some(Step::Missing(_)) => panic!("polled for what is missing"),
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

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(
            self.steps
                .iter()
                .map(|step| match step {
                    Step::Data(data) => length(data.len()),
                    Step::Missing(bytes) => *bytes,
                    Step::Trailers(_) | Step::Pending | Step::Broken => 0,
                })
                .sum(),
        )
    }
}

fn trailers(value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::TRAILER, HeaderValue::from_static(value))])
}

/// What a frame is, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data(Bytes),
    Trailers(HeaderMap),
    Error(String),
    Pending,
    End,
}

fn poll<B>(body: &mut ReplayBody<B>) -> Seen
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Seen::Pending,
        Poll::Ready(None) => Seen::End,
        Poll::Ready(Some(Err(error))) => Seen::Error(error.to_string()),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => Seen::Data(data),
            Err(frame) => Seen::Trailers(frame.into_trailers().unwrap()),
        },
    }
}

fn read<B>(body: &mut ReplayBody<B>) -> Vec<Seen>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| matches!(last, Seen::Data(_) | Seen::Trailers(_) | Seen::Pending)) {
        seen.push(poll(body));
    }
    seen.retain(|seen| *seen != Seen::Pending);
    seen
}

fn data(data: &'static str) -> Seen {
    Seen::Data(Bytes::from_static(data.as_bytes()))
}

fn four_frames() -> Vec<Step> {
    vec![Step::Data("one"), Step::Data(""), Step::Pending, Step::Data("three"), Step::Trailers("end")]
}

fn as_seen() -> Vec<Seen> {
    vec![data("one"), data(""), data("three"), Seen::Trailers(trailers("end")), Seen::End]
}

#[test]
fn every_attempt_gives_the_same_frames_with_their_borders() {
    let original = ReplayBody::new(Script::new(four_frames()));
    for _ in 0..3 {
        let mut attempt = original.replay().unwrap();
        assert_eq!(attempt.size_hint().exact(), Some(8));
        assert_eq!(read(&mut attempt), as_seen());
        assert!(attempt.is_end_stream());
        assert_eq!((poll(&mut attempt), attempt.size_hint().exact()), (Seen::End, Some(0)));
    }
}

#[test]
fn an_attempt_that_was_dropped_after_any_number_of_polls_is_taken_up_where_it_left_the_source() {
    for polls in 0..6 {
        let original = ReplayBody::new(Script::new(four_frames()));
        let mut first = original.replay().unwrap();
        for _ in 0..polls {
            poll(&mut first);
        }
        drop(first);
        let mut second = original.replay().unwrap();
        assert_eq!(second.size_hint().exact(), Some(8), "after {polls} polls");
        assert_eq!(read(&mut second), as_seen(), "after {polls} polls");
    }
}

#[test]
fn a_body_that_is_still_being_sent_is_not_replayed_nor_disturbed() {
    let original = ReplayBody::new(Script::new(four_frames()));
    let mut first = original.replay().unwrap();
    assert_eq!(poll(&mut first), data("one"));
    assert_eq!(original.replayable(), Err(NotReplayable::StillSending));
    assert_eq!(original.replay().unwrap_err(), NotReplayable::StillSending);
    assert_eq!(read(&mut first)[..], as_seen()[1..]);
    assert_eq!(original.replayable(), Ok(()));
}

#[test]
fn a_replay_ends_the_attempt_before_it_with_an_error() {
    let original = ReplayBody::new(Script::new(four_frames()));
    let held = original.replay().unwrap();
    let mut unpolled = original.replay().unwrap();
    let mut second = original.replay().unwrap();
    assert_eq!(poll(&mut second), data("one"));
    for _ in 0..2 {
        assert!(matches!(poll(&mut unpolled), Seen::Error(error) if error.contains("newer attempt")));
        assert!(!unpolled.is_end_stream());
    }
    drop(unpolled);
    assert_eq!(original.replayable(), Err(NotReplayable::StillSending));
    assert_eq!(read(&mut second)[..], as_seen()[1..]);
    // A transport that asks before it polls must not take the newer attempt's end for that of this one.
    assert!(second.is_end_stream() && !held.is_end_stream());
    assert_eq!(held.size_hint().exact(), None);
}

#[test]
fn one_frame_in_memory_is_shared_not_copied() {
    let bytes = Bytes::from(vec![7; 1000]);
    let original = ReplayBody::new(Full::new(bytes.clone()));
    for _ in 0..3 {
        let mut attempt = original.replay().unwrap();
        assert_eq!((attempt.size_hint().exact(), attempt.is_end_stream()), (Some(1000), false));
        let Seen::Data(data) = poll(&mut attempt) else { panic!("no data") };
        assert_eq!(data.as_ptr(), bytes.as_ptr());
        assert!(attempt.is_end_stream() && attempt.size_hint().exact() == Some(0));
        assert_eq!(poll(&mut attempt), Seen::End);
    }
    assert!(matches!(original.kind, Kind::Whole { .. }));
}

#[test]
fn a_buffer_that_is_not_bytes_is_copied_into_them() {
    let parts = std::io::Cursor::new(b"parts".to_vec());
    let original = ReplayBody::new(Full::new(parts));
    for _ in 0..2 {
        assert_eq!(read(&mut original.replay().unwrap()), [data("parts"), Seen::End]);
    }
}

#[test]
fn an_empty_body_is_empty_in_every_attempt() {
    fn check<B>(original: &ReplayBody<B>)
    where
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        assert!(matches!(original.kind, Kind::Empty));
        for _ in 0..2 {
            let mut attempt = original.replay().unwrap();
            assert!(attempt.is_end_stream() && attempt.size_hint().exact() == Some(0));
            assert_eq!(poll(&mut attempt), Seen::End);
        }
    }
    check(&ReplayBody::new(Full::<Bytes>::default()));
    check(&ReplayBody::new(http_body_util::Empty::<Bytes>::new()));
    check(&ReplayBody::new(Script::new([])));
    check(&ReplayBody::<Full<Bytes>>::default());
}

#[test]
fn trailers_alone_are_replayed() {
    let original = ReplayBody::new(Script::new([Step::Trailers("only")]));
    for _ in 0..2 {
        let mut attempt = original.replay().unwrap();
        assert!(!attempt.is_end_stream());
        assert_eq!(read(&mut attempt), [Seen::Trailers(trailers("only")), Seen::End]);
    }
}

#[test]
fn the_limit_itself_is_replayable_and_a_byte_more_is_not() {
    let steps = || [Step::Data("four"), Step::Data("four")];
    let at = |limit| ReplayBody::with_limit(Script::new(steps()), limit);
    for limit in [8, 9, u64::MAX] {
        let original = at(limit);
        for _ in 0..2 {
            assert_eq!(read(&mut original.replay().unwrap()), [data("four"), data("four"), Seen::End]);
        }
    }
    for limit in [0, 7] {
        let mut once = at(limit);
        assert_eq!(once.replay().unwrap_err(), NotReplayable::TooLong);
        // It is sent nevertheless, and not one frame of it is kept.
        assert_eq!(once.size_hint().exact(), Some(8));
        assert_eq!(read(&mut once), [data("four"), data("four"), Seen::End]);
        assert!(matches!(once.kind, Kind::Through { ref backlog, source: None, .. } if backlog.is_empty()));
    }
}

#[test]
fn a_body_of_unknown_length_is_sent_once() {
    let stream = http_body_util::StreamBody::new(futures_util::stream::iter([
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))),
        Ok(Frame::data(Bytes::new())),
    ]));
    let mut once = ReplayBody::new(stream);
    assert_eq!(once.replayable(), Err(NotReplayable::UnknownLength));
    assert_eq!(read(&mut once), [data("x"), data(""), Seen::End]);
    assert_eq!(poll(&mut once), Seen::End);
}

#[test]
fn a_body_longer_than_it_said_goes_on_without_being_recorded() {
    // Seen is one frame at a time; what is beyond the limit comes as a surprise.
    struct Liar(Script);
    impl Body for Liar {
        type Data = Bytes;
        type Error = &'static str;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(4)
        }
    }
    let steps = [Step::Data("four"), Step::Data("more"), Step::Pending, Step::Data("end")];
    let original = ReplayBody::with_limit(Liar(Script::new(steps)), 6);
    let mut attempt = original.replay().unwrap();
    assert_eq!((poll(&mut attempt), poll(&mut attempt)), (data("four"), data("more")));
    let Kind::Recorded(share) = &original.kind else { panic!("not recorded") };
    assert!(share.lock().unwrap().log.is_empty(), "what was recorded is still there");
    assert_eq!(original.replay().unwrap_err(), NotReplayable::TooLong);
    assert_eq!(original.replayable(), Err(NotReplayable::TooLong));
    assert_eq!(read(&mut attempt), [data("end"), Seen::End]);
}

#[test]
fn tiny_frames_are_recorded_up_to_a_number() {
    let steps = |count| Script::new(std::iter::repeat_n(Step::Data("x"), count));
    for (count, expected) in [(MOST_FRAMES, Ok(())), (MOST_FRAMES + 1, Err(NotReplayable::TooLong))] {
        let original = ReplayBody::new(steps(count));
        assert_eq!(read(&mut original.replay().unwrap()).len(), count + 1);
        assert_eq!(original.replayable(), expected);
    }
}

#[test]
fn a_source_that_fails_is_never_polled_again_and_its_text_is_kept() {
    for steps in [
        vec![Step::Broken, Step::Missing(9)],
        vec![Step::Data("one"), Step::Broken, Step::Missing(9)],
        vec![Step::Pending, Step::Data("one"), Step::Pending, Step::Broken, Step::Missing(9)],
    ] {
        let original = ReplayBody::new(Script::new(steps));
        let (mut attempt, kept) = match original.replay() {
            Ok(attempt) => (attempt, Some(original)),
            Err(why) => {
                assert_eq!(why, NotReplayable::SourceFailed);
                (original, None)
            }
        };
        let seen = read(&mut attempt);
        assert_eq!(seen.last(), Some(&Seen::Error("the disk is gone".into())), "{seen:?}");
        assert_eq!(poll(&mut attempt), Seen::End);
        if let Some(original) = kept {
            assert_eq!(original.replayable(), Err(NotReplayable::SourceFailed));
        }
    }
}

#[test]
fn a_source_that_panics_is_not_touched_again() {
    let original = ReplayBody::new(Script::new([Step::Data("one"), Step::Missing(9)]));
    let mut attempt = original.replay().unwrap();
    assert_eq!(poll(&mut attempt), data("one"));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut attempt))).unwrap_err();
    assert!(matches!(poll(&mut attempt), Seen::Error(_)));
    drop(attempt);
    assert_eq!(original.replay().unwrap_err(), NotReplayable::SourceFailed);
}

#[test]
fn dropping_the_original_frees_what_was_given_and_the_attempt_goes_on() {
    let original = ReplayBody::new(Script::new(four_frames()));
    let mut attempt = original.replay().unwrap();
    assert_eq!(poll(&mut attempt), data("one"));
    drop(original);
    let Kind::Recorded(share) = &attempt.kind else { panic!("not recorded") };
    assert!(share.lock().unwrap().log.is_empty());
    assert_eq!(attempt.size_hint().exact(), Some(5));
    assert_eq!(attempt.replayable(), Err(NotReplayable::Released));
    assert_eq!(read(&mut attempt)[..], as_seen()[1..]);
    assert!(matches!(attempt.kind, Kind::Through { .. }));
}

#[test]
fn dropping_the_original_in_the_middle_of_a_replay_keeps_what_is_still_to_be_given() {
    let original = ReplayBody::new(Script::new(four_frames()));
    assert_eq!(read(&mut original.replay().unwrap()), as_seen());
    let mut replay = original.replay().unwrap();
    assert_eq!(poll(&mut replay), data("one"));
    drop(original);
    assert_eq!(replay.size_hint().exact(), Some(5));
    assert_eq!(read(&mut replay)[..], as_seen()[1..]);
}

#[test]
fn the_source_goes_with_the_last_of_them() {
    let script = Script::new(four_frames());
    let polled = Arc::clone(&script.polled);
    let original = ReplayBody::new(script);
    let mut attempt = original.replay().unwrap();
    poll(&mut attempt);
    assert_eq!((Arc::strong_count(&polled), polled.load(Ordering::Relaxed)), (2, 1));
    drop((original, attempt));
    assert_eq!(Arc::strong_count(&polled), 1);
}

#[tokio::test]
async fn it_is_a_body_like_any_other() {
    let original = ReplayBody::new(Full::new(Bytes::from_static(b"whole")));
    assert_eq!(original.replay().unwrap().collect().await.unwrap().to_bytes(), "whole");
    assert_eq!(original.collect().await.unwrap().to_bytes(), "whole");
}
