//! The probe of the other tests is itself honest.

mod support;

use std::task::{Context, Poll, Waker};

use support::{Probe, Readiness};
use tower::{Service as _, ServiceExt as _};

fn echo(permits: usize) -> Probe<u32, u32> {
    Probe::with_permits(permits, |n| async move { Ok(n) })
}

#[tokio::test]
#[should_panic(expected = "called without having been polled ready")]
async fn a_clone_of_a_ready_service_must_not_be_called() {
    let mut ready = echo(8);
    ready.ready().await.unwrap();
    let _ = ready.clone().call(1).await;
}

#[tokio::test]
async fn a_permit_is_held_from_readiness_to_the_end_of_the_call() {
    let mut one = echo(1);
    one.ready().await.unwrap();
    assert_eq!((one.reserved(), one.busy()), (1, 0));
    let call = one.call(1);
    assert_eq!((one.reserved(), one.busy(), one.calls()), (0, 1, 1));
    let mut clone = one.clone();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(clone.poll_ready(&mut cx).is_pending());
    drop(call);
    assert!(clone.poll_ready(&mut cx).is_ready());
    drop(clone);
    assert_eq!((one.reserved(), one.busy()), (0, 0));
    assert_eq!(one.ready().await.unwrap().call(7).await.unwrap(), 7);
    assert_eq!(one.most_busy(), 1);
}

#[test]
fn readiness_follows_the_script() {
    let mut probe = echo(8).readiness([Readiness::Ready, Readiness::Broken, Readiness::Never]);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(probe.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    assert!(matches!(probe.clone().poll_ready(&mut cx), Poll::Ready(Err(_))));
    assert!(probe.clone().poll_ready(&mut cx).is_pending());
}
