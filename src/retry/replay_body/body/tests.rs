use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};

use super::super::recording::{LEAST_WEIGHT, MOST_FRAMES};
use super::*;

impl<B> RequestBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn with_limit(body: B, bytes: u64) -> Self {
        Self::recording(
            body,
            BodyLimits { exact: bytes, in_memory: bytes, stream: bytes, ..BodyLimits::default() },
        )
    }
}

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

/// It says of its length the same at any time, true or not, as a body does whose length is in a header.
struct Steady(Script, u64);

impl Body for Steady {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1)
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

fn poll<B>(body: &mut RequestBody<B>) -> Seen
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

fn read<B>(body: &mut RequestBody<B>) -> Vec<Seen>
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

fn share<B>(body: &RequestBody<B>) -> &Recording<BodySource<B>> {
    match &body.kind {
        BodyKind::Recorded { share, .. } => share,
        _ => panic!("not recorded"),
    }
}

#[test]
fn every_attempt_gives_the_same_frames_with_their_borders() {
    let original = RequestBody::new(Script::new(four_frames()));
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
        let original = RequestBody::new(Script::new(four_frames()));
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

/// Counts how often a task was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls as the task that hears this bell, and expects to wait.
fn wait<B>(body: &mut RequestBody<B>, bell: &Arc<Bell>)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let waker = Waker::from(Arc::clone(bell));
    assert!(Pin::new(body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
}

fn is_taken_over<B>(body: &mut RequestBody<B>) -> bool
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let over = matches!(poll(body), Seen::Error(error) if error.contains("newer attempt"));
    over && !body.is_end_stream() && body.size_hint().exact().is_none()
}

#[test]
fn an_upload_is_taken_over_after_any_number_of_polls_and_any_number_of_times() {
    for polls in 0..6 {
        let original = RequestBody::new(Script::new(four_frames()));
        let mut held: Vec<RequestBody<_>> = Vec::new();
        for _ in 0..4 {
            let mut attempt = original.replay().unwrap();
            assert_eq!(attempt.size_hint().exact(), Some(8));
            for _ in 0..polls {
                poll(&mut attempt);
            }
            held.push(attempt);
        }
        let mut last = original.replay().unwrap();
        assert_eq!(poll(&mut last), data("one"));
        // Twice, and never an end, even while the newest is in the middle.
        assert!(held.iter_mut().chain([]).all(|old| is_taken_over(old) && is_taken_over(old)));
        drop(held);
        assert_eq!(read(&mut last)[..], as_seen()[1..], "after {polls} polls");
        assert!(last.is_end_stream());
    }
}

#[test]
fn an_attempt_that_waits_is_woken_by_the_next_one_once_and_at_once() {
    let (old, new) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    let steps = [Step::Pending, Step::Pending, Step::Pending, Step::Data("one")];
    let original = RequestBody::new(Script::new(steps));
    let mut first = original.replay().unwrap();
    wait(&mut first, &old);
    let mut second = original.replay().unwrap();
    assert_eq!(old.rung(), 1);
    wait(&mut second, &new);
    // The task of the first attempt has nothing to do with this body any more.
    assert!(is_taken_over(&mut first));
    drop(first);
    assert_eq!((old.rung(), new.rung(), Arc::strong_count(&old)), (1, 0, 1));
    assert_eq!(read(&mut second), [data("one"), Seen::End]);
}

#[test]
fn an_attempt_that_was_dropped_is_not_woken_nor_is_its_task_kept() {
    let bell = Arc::new(Bell::default());
    let original = RequestBody::new(Script::new([Step::Pending, Step::Pending, Step::Data("one")]));
    let mut first = original.replay().unwrap();
    wait(&mut first, &bell);
    drop(first);
    assert_eq!(Arc::strong_count(&bell), 1);
    assert_eq!(read(&mut original.replay().unwrap()), [data("one"), Seen::End]);
    assert_eq!(bell.rung(), 0);
}

#[test]
fn a_source_that_keeps_everybody_waiting_is_replayed_as_far_as_it_came() {
    let steps = [Step::Data("one"), Step::Data("two")].into_iter();
    let original = RequestBody::new(Script::new(steps.chain(std::iter::repeat_n(Step::Pending, 100))));
    let bell = Arc::new(Bell::default());
    for round in 0..10 {
        let mut attempt = original.replay().unwrap();
        assert_eq!((poll(&mut attempt), poll(&mut attempt)), (data("one"), data("two")));
        wait(&mut attempt, &bell);
        // It stays held, as by a transport that has not noticed.
        std::mem::forget(attempt);
        assert_eq!(bell.rung(), round);
    }
}

#[test]
fn what_goes_with_a_waker_may_come_back_to_the_body() {
    /// A task that holds an attempt, and goes away with its last waker.
    struct Task(#[expect(dead_code, reason = "it is there to be dropped")] RequestBody<Script>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let original = RequestBody::new(Script::new(std::iter::repeat_n(Step::Pending, 9)));
    let task = || Waker::from(Arc::new(Task(original.replay().unwrap())));
    let (one, two) = (task(), task());
    let mut attempt = original.replay().unwrap();
    for waker in [one, two] {
        // The second poll is by another task: it ends the first task, whose attempt wants the lock for its own end.
        assert!(Pin::new(&mut attempt).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    }
    // So does the next attempt.
    drop(original.replay().unwrap());
}

#[test]
fn one_frame_in_memory_is_shared_not_copied() {
    let bytes = Bytes::from(vec![7; 1000]);
    let original = RequestBody::new(Full::new(bytes.clone()));
    for _ in 0..3 {
        let mut attempt = original.replay().unwrap();
        assert_eq!((attempt.size_hint().exact(), attempt.is_end_stream()), (Some(1000), false));
        let Seen::Data(data) = poll(&mut attempt) else { panic!("no data") };
        assert_eq!(data.as_ptr(), bytes.as_ptr());
        assert!(attempt.is_end_stream() && attempt.size_hint().exact() == Some(0));
        assert_eq!(poll(&mut attempt), Seen::End);
    }
    assert!(matches!(original.kind, BodyKind::InMemory(_)));
    // The original itself may be read, and is no empty body afterwards.
    let (mut read_itself, kept) = (original.replay().unwrap(), original.shared().unwrap());
    assert_eq!(read(&mut read_itself).len(), 2);
    assert_eq!(read_itself.replay().err(), Some(NotReplayable::Released));
    assert!(read_itself.shared().is_none() && kept.replay().is_ok());
}

#[test]
fn a_buffer_that_is_not_bytes_is_copied_into_them() {
    let parts = std::io::Cursor::new(b"parts".to_vec());
    let original = RequestBody::new(Full::new(parts));
    for _ in 0..2 {
        assert_eq!(read(&mut original.replay().unwrap()), [data("parts"), Seen::End]);
    }
}

#[test]
fn an_empty_body_is_empty_in_every_attempt() {
    fn check<B>(original: &RequestBody<B>)
    where
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        assert!(matches!(&original.kind, BodyKind::InMemory(None)));
        for _ in 0..2 {
            let mut attempt = original.replay().unwrap();
            assert!(attempt.is_end_stream() && attempt.size_hint().exact() == Some(0));
            assert_eq!(poll(&mut attempt), Seen::End);
        }
    }
    check(&RequestBody::new(Full::<Bytes>::default()));
    check(&RequestBody::new(http_body_util::Empty::<Bytes>::new()));
    check(&RequestBody::new(Script::new([])));
    check(&RequestBody::<Full<Bytes>>::default());
}

#[test]
fn trailers_alone_are_replayed() {
    let original = RequestBody::new(Script::new([Step::Trailers("only")]));
    for _ in 0..2 {
        let mut attempt = original.replay().unwrap();
        assert!(!attempt.is_end_stream());
        assert_eq!(read(&mut attempt), [Seen::Trailers(trailers("only")), Seen::End]);
    }
}

#[test]
fn the_limit_itself_is_replayable_and_a_byte_more_is_not() {
    let steps = || [Step::Data("four"), Step::Data("four")];
    let at = |limit| RequestBody::with_limit(Script::new(steps()), limit);
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
        assert!(matches!(&once.kind, BodyKind::Once { source: None, .. }));
    }
}

/// A body that says nothing of its length.
fn unknown(steps: impl IntoIterator<Item = Step>) -> impl Body<Data = Bytes, Error = &'static str> + Unpin {
    let mut script = Script::new(steps);
    http_body_util::StreamBody::new(futures_util::stream::poll_fn(move |cx| {
        if script.over { Poll::Ready(None) } else { Pin::new(&mut script).poll_frame(cx) }
    }))
}

#[test]
fn a_body_of_unknown_length_is_recorded_up_to_a_limit_of_its_own() {
    let original = RequestBody::new(unknown(four_frames()));
    for _ in 0..3 {
        let mut attempt = original.replay().unwrap();
        assert_eq!(read(&mut attempt), as_seen());
    }
    // What was recorded is known for sure, and yet a transport frames it as it did the first time.
    let mut attempt = original.replay().unwrap();
    assert_eq!((attempt.size_hint().lower(), attempt.size_hint().upper()), (8, None));
    poll(&mut attempt);
    assert_eq!(attempt.size_hint().exact(), Some(5));
    let empty = RequestBody::new(unknown([]));
    for _ in 0..2 {
        let mut attempt = empty.replay().unwrap();
        assert!(!attempt.is_end_stream() && attempt.size_hint().exact().is_none());
        assert_eq!(poll(&mut attempt), Seen::End);
        assert!(attempt.is_end_stream());
    }

    static KIB: [u8; 1024] = [b'x'; 1024];
    let kib = || Step::Data(std::str::from_utf8(&KIB).unwrap());
    for (extra, expected) in [(None, Ok(())), (Some(Step::Data("y")), Err(NotReplayable::UnknownLength))] {
        let original = RequestBody::new(unknown(std::iter::repeat_with(kib).take(64).chain(extra)));
        let mut attempt = original.replay().unwrap();
        let seen = read(&mut attempt);
        assert_eq!(seen.last(), Some(&Seen::End));
        assert_eq!(original.replayable(), expected);
        assert_eq!(original.replay().err(), expected.err());
    }
}

#[test]
fn what_is_taken_is_given_back_exactly() {
    let allowance = Arc::new(Allowance::new(100));
    let (mut one, mut two) = (HeldBytes::nothing_of(&allowance), HeldBytes::nothing_of(&allowance));
    assert!(one.cover(60) && one.cover(10) && two.cover(40));
    assert_eq!(allowance.left(), 0);
    // Nothing is taken where not all of it is there.
    assert!(!one.cover(61) && !two.cover(u64::MAX) && one.cover(60));
    drop(one);
    assert_eq!(allowance.left(), 60);
    assert!(two.cover(100));
    drop(two);
    assert_eq!(allowance.left(), 100);
}

#[test]
fn without_an_allowance_there_is_no_end() {
    assert!(HeldBytes::default().cover(u64::MAX));
}

#[test]
fn a_limit_that_is_hit_in_a_later_attempt_leaves_that_attempt_whole() {
    let steps = [Step::Data("four"), Step::Data("four"), Step::Data("more"), Step::Data("end")];
    let original = RequestBody::with_limit(unknown(steps), 8);
    let mut first = original.replay().unwrap();
    assert_eq!((poll(&mut first), poll(&mut first)), (data("four"), data("four")));
    let mut second = original.replay().unwrap();
    assert_eq!(read(&mut second), [data("four"), data("four"), data("more"), data("end"), Seen::End]);
    assert!(is_taken_over(&mut first));
    assert_eq!(original.replay().unwrap_err(), NotReplayable::UnknownLength);
}

#[test]
fn at_the_limit_of_zero_only_what_has_no_bytes_is_recorded() {
    let original = RequestBody::with_limit(unknown([Step::Data(""), Step::Trailers("end")]), 0);
    for _ in 0..2 {
        let seen = [data(""), Seen::Trailers(trailers("end")), Seen::End];
        assert_eq!(read(&mut original.replay().unwrap()), seen);
    }
    let original = RequestBody::with_limit(unknown([Step::Data("x")]), 0);
    assert_eq!(read(&mut original.replay().unwrap()), [data("x"), Seen::End]);
    assert_eq!(original.replayable(), Err(NotReplayable::UnknownLength));
}

#[test]
fn of_a_grpc_call_one_message_is_recorded_and_no_stream() {
    let limits = BodyLimits { is_grpc: &|| true, ..BodyLimits::default() };
    let (message, another) = ("\0\0\0\0\x03one", "\0\0\0\0\x03two");
    for frames in [vec![message], vec!["\0\0\0\0\x03o", "ne"], vec!["", message], vec!["\0\0\0\0\0"]] {
        let original = RequestBody::recording(unknown(frames.iter().map(|frame| Step::Data(frame))), limits);
        let seen = frames.iter().map(|frame| data(frame)).chain([Seen::End]).collect::<Vec<_>>();
        for _ in 0..2 {
            assert_eq!(read(&mut original.replay().unwrap()), seen);
        }
    }
    let both: &'static str = "\0\0\0\0\x03one\0\0\0\0\x03two";
    for frames in [vec![message, another], vec![both], vec![message, "\0"]] {
        let stream = || unknown(frames.iter().map(|frame| Step::Data(frame)));
        let original = RequestBody::recording(stream(), limits);
        let seen = frames.iter().map(|frame| data(frame)).chain([Seen::End]).collect::<Vec<_>>();
        assert_eq!(read(&mut original.replay().unwrap()), seen);
        assert_eq!(original.replayable(), Err(NotReplayable::SeveralMessages));
        // Of what is no gRPC call the frames mean nothing.
        let original = RequestBody::recording(stream(), BodyLimits::default());
        assert_eq!(read(&mut original.replay().unwrap()), seen);
        assert_eq!(original.replayable(), Ok(()));
    }
    // A message above the limit is just that.
    let original = RequestBody::recording(unknown([Step::Data(message)]), BodyLimits { stream: 7, ..limits });
    assert_eq!(read(&mut original.replay().unwrap()), [data(message), Seen::End]);
    assert_eq!(original.replayable(), Err(NotReplayable::UnknownLength));
}

#[test]
fn the_bodies_of_all_requests_share_an_allowance_and_none_is_refused() {
    let allowance = Arc::new(Allowance::new(20));
    let limits = BodyLimits { exact: 100, stream: 100, allowance: Some(&allowance), ..BodyLimits::default() };
    // Eight bytes in four frames: they weigh more than they are long, so that the allowance counts frames as well.
    let of_eight = || RequestBody::recording(Script::new([Step::Data("four"), Step::Data("four")]), limits);
    let pending = || RequestBody::recording(Script::new([Step::Pending, Step::Missing(8)]), limits);
    let (one, two) = (pending(), pending());
    assert_eq!((allowance.left(), one.replayable(), two.replayable()), (4, Ok(()), Ok(())));
    let mut third = of_eight();
    assert_eq!(third.replay().unwrap_err(), NotReplayable::AllowanceExhausted);
    assert_eq!(third.size_hint().exact(), Some(8));
    assert_eq!(read(&mut third), [data("four"), data("four"), Seen::End]);
    assert_eq!(allowance.left(), 4);
    drop((one, two));
    assert_eq!(allowance.left(), 20);

    // In memory, and so not counted.
    let whole = RequestBody::recording(Full::new(Bytes::from(vec![7; 50])), limits);
    assert_eq!((allowance.left(), whole.replayable()), (20, Ok(())));
}

#[test]
fn what_a_recording_held_is_given_back_exactly_when_it_is_freed() {
    let allowance = Arc::new(Allowance::new(10 * LEAST_WEIGHT));
    let limits = BodyLimits { exact: 100, stream: 100, allowance: Some(&allowance), ..BodyLimits::default() };
    let start = || {
        let original = RequestBody::recording(unknown(four_frames()), limits);
        let mut attempt = original.replay().unwrap();
        assert_eq!((poll(&mut attempt), poll(&mut attempt)), (data("one"), data("")));
        assert_eq!(allowance.left(), 8 * LEAST_WEIGHT);
        (original, attempt)
    };
    // On commit, though the upload goes on.
    let (original, mut attempt) = start();
    drop(original);
    assert_eq!(allowance.left(), 10 * LEAST_WEIGHT);
    assert_eq!(read(&mut attempt), as_seen()[2..]);

    // On the last permitted attempt: as soon as it has given what was recorded.
    let (original, _held) = start();
    let mut last = original.replay().unwrap();
    drop(original);
    assert_eq!((poll(&mut last), allowance.left()), (data("one"), 8 * LEAST_WEIGHT));
    assert_eq!((poll(&mut last), allowance.left()), (data(""), 10 * LEAST_WEIGHT));

    // When the transport drops the last attempt, whenever that is.
    let (original, attempt) = start();
    drop((attempt, original));
    assert_eq!(allowance.left(), 10 * LEAST_WEIGHT);

    // When there is no more to be had: in the middle of the upload.
    let (original, mut attempt) = start();
    let mut others = HeldBytes::nothing_of(&allowance);
    assert!(others.cover(8 * LEAST_WEIGHT));
    assert_eq!((poll(&mut attempt), poll(&mut attempt)), (Seen::Pending, data("three")));
    assert_eq!(allowance.left(), 2 * LEAST_WEIGHT);
    assert_eq!(original.replay().unwrap_err(), NotReplayable::AllowanceExhausted);
    assert_eq!(read(&mut attempt), as_seen()[3..]);
}

#[test]
fn a_body_longer_than_it_said_goes_on_without_being_recorded() {
    // Seen is one frame at a time; what is beyond the limit comes as a surprise.
    let steps = [Step::Data("four"), Step::Data("more"), Step::Pending, Step::Data("end")];
    let original = RequestBody::with_limit(Steady(Script::new(steps), 4), 6);
    let mut attempt = original.replay().unwrap();
    assert_eq!((poll(&mut attempt), poll(&mut attempt)), (data("four"), data("more")));
    assert_eq!(share(&original).recorded(), 0, "what was recorded is still there");
    assert_eq!(original.replay().unwrap_err(), NotReplayable::TooLong);
    assert_eq!(original.replayable(), Err(NotReplayable::TooLong));
    assert_eq!(read(&mut attempt), [data("end"), Seen::End]);
}

#[test]
fn a_body_above_the_limit_is_framed_by_the_length_that_it_announced() {
    let steps = || Steady(Script::new([Step::Data("four"), Step::Data("four")]), 8);
    let limits = BodyLimits { exact: 4, in_memory: u64::MAX, ..BodyLimits::default() };
    let mut once = RequestBody::recording(steps(), limits);
    assert_eq!((once.size_hint().exact(), once.replayable()), (Some(8), Err(NotReplayable::TooLong)));
    assert_eq!(read(&mut once), [data("four"), data("four"), Seen::End]);
    let allowance = Arc::new(Allowance::new(4));
    let limits = BodyLimits { allowance: Some(&allowance), ..BodyLimits::default() };
    let once = RequestBody::recording(steps(), limits);
    assert_eq!(once.size_hint().exact(), Some(8));
    assert_eq!(once.replayable(), Err(NotReplayable::AllowanceExhausted));
}

#[test]
fn tiny_frames_are_recorded_up_to_a_number() {
    let steps = |count| Script::new(std::iter::repeat_n(Step::Data("x"), count));
    for (count, expected) in [(MOST_FRAMES, Ok(())), (MOST_FRAMES + 1, Err(NotReplayable::TooLong))] {
        let original = RequestBody::new(steps(count));
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
        let original = RequestBody::new(Script::new(steps));
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
    let original = RequestBody::new(Script::new([Step::Data("one"), Step::Missing(9)]));
    let mut attempt = original.replay().unwrap();
    assert_eq!(poll(&mut attempt), data("one"));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut attempt))).unwrap_err();
    assert!(matches!(poll(&mut attempt), Seen::Error(_)));
    drop(attempt);
    assert_eq!(original.replay().unwrap_err(), NotReplayable::SourceFailed);
}

#[test]
fn dropping_the_original_frees_what_was_given_and_the_attempt_goes_on() {
    let original = RequestBody::new(Script::new(four_frames()));
    let mut attempt = original.replay().unwrap();
    assert_eq!(poll(&mut attempt), data("one"));
    drop(original);
    assert_eq!(share(&attempt).recorded(), 0);
    assert_eq!(attempt.size_hint().exact(), Some(5));
    assert_eq!(attempt.replayable(), Err(NotReplayable::Released));
    assert_eq!(read(&mut attempt)[..], as_seen()[1..]);
    assert!(matches!(attempt.kind, BodyKind::Rest { .. }));
}

#[test]
fn dropping_the_original_in_the_middle_of_a_replay_keeps_what_is_still_to_be_given() {
    let original = RequestBody::new(Script::new(four_frames()));
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
    let original = RequestBody::new(script);
    let mut attempt = original.replay().unwrap();
    poll(&mut attempt);
    assert_eq!((Arc::strong_count(&polled), polled.load(Ordering::Relaxed)), (2, 1));
    drop((original, attempt));
    assert_eq!(Arc::strong_count(&polled), 1);
}

#[tokio::test]
async fn it_is_a_body_like_any_other() {
    let original = RequestBody::new(Full::new(Bytes::from_static(b"whole")));
    assert_eq!(original.replay().unwrap().collect().await.unwrap().to_bytes(), "whole");
    assert_eq!(original.collect().await.unwrap().to_bytes(), "whole");
}
