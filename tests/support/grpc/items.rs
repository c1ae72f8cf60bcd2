//! A gRPC service and its client, as a generator makes them of this:
//!
//! ```proto
//! service Items {
//!   rpc Read(Item) returns (Item);                 // what was sent
//!   rpc List(Item) returns (stream Item);          // what was sent, three times
//!   rpc Write(stream Item) returns (Item);         // how many came, and the digest of all
//!   rpc Talk(stream Item) returns (stream Item);   // each as it comes
//! }
//! ```
//!
//! Messages are bytes as they are, so that neither protoc nor a build script is needed.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part")]

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::uri::{PathAndQuery, Uri};
use sha2::{Digest as _, Sha256};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming};
use tower::{BoxError, Service, service_fn};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The client of the service, over any gRPC channel.
#[derive(Clone, Debug)]
pub struct ItemsClient<T> {
    grpc: tonic::client::Grpc<T>,
}

/// The service. Clones share what it has received.
#[derive(Clone)]
pub struct ItemsServer {
    guard: Arc<dyn Fn(MetadataMap) -> BoxFuture<Result<(), Refusal>> + Send + Sync>,
    received: Arc<Mutex<Vec<Bytes>>>,
}

/// How a call is refused.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// At once, in the headers.
    AtOnce(Status),
    /// In the trailers, before any data.
    WithoutData(Status),
    /// In the end: in the trailers, after the data.
    AtTheEnd(Status),
}

/// Messages that are bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

// --- ItemsClient ---

impl<T> ItemsClient<T>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError> + Send,
{
    /// Creates a client whose requests name no host: the channel below knows it.
    pub fn new(inner: T) -> Self {
        Self { grpc: tonic::client::Grpc::new(inner) }
    }

    /// Creates a client whose requests name the host of `origin`.
    pub fn with_origin(inner: T, origin: Uri) -> Self {
        Self { grpc: tonic::client::Grpc::with_origin(inner, origin) }
    }

    pub async fn read(&mut self, request: impl IntoRequest<Bytes>) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.grpc.unary(request.into_request(), path("Read"), Plain).await
    }

    pub async fn list(
        &mut self,
        request: impl IntoRequest<Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        self.grpc.server_streaming(request.into_request(), path("List"), Plain).await
    }

    pub async fn write(
        &mut self,
        request: impl IntoStreamingRequest<Message = Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.grpc.client_streaming(request.into_streaming_request(), path("Write"), Plain).await
    }

    pub async fn talk(
        &mut self,
        request: impl IntoStreamingRequest<Message = Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        self.grpc.streaming(request.into_streaming_request(), path("Talk"), Plain).await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::unknown(format!("not ready: {}", error.into())))
    }
}

fn path(method: &'static str) -> PathAndQuery {
    format!("/items.Items/{method}").parse().expect("a name in letters is a path")
}

// --- ItemsServer ---

impl ItemsServer {
    /// Creates a service that asks `guard` about each call before it reads what was sent.
    pub fn new<F>(guard: impl Fn(MetadataMap) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        Self { guard: Arc::new(move |metadata| Box::pin(guard(metadata))), received: Arc::default() }
    }

    /// Returns what was written, call by call: the responses of those that came to their end.
    pub fn received(&self) -> Vec<Bytes> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what the service says to messages that were written.
    pub fn digest<'a>(messages: impl IntoIterator<Item = &'a Bytes>) -> Bytes {
        let (mut count, mut hash) = (0, Sha256::new());
        for message in messages {
            count += 1;
            hash.update(message);
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Bytes::from(format!("{count} {digest}"))
    }

    /// Responds with a stream: `Read` is one of a single message, which is the same on the wire.
    async fn serve(
        self,
        metadata: MetadataMap,
        messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
    ) -> Result<Response<impl Stream<Item = Result<Bytes, Status>> + Send + 'static>, Status> {
        let response = match (self.guard)(metadata).await {
            Ok(()) => messages.boxed(),
            Err(Refusal::AtOnce(status)) => return Err(status),
            Err(Refusal::WithoutData(status)) => stream::iter([Err(status)]).boxed(),
            Err(Refusal::AtTheEnd(status)) => messages.chain(stream::iter([Err(status)])).boxed(),
        };
        Ok(Response::new(response))
    }

    async fn write(self, request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let late = match (self.guard)(metadata).await {
            Ok(()) => None,
            Err(Refusal::AtOnce(status) | Refusal::WithoutData(status)) => return Err(status),
            Err(Refusal::AtTheEnd(status)) => Some(status),
        };
        let mut all = Vec::new();
        while let Some(message) = messages.message().await? {
            all.push(message);
        }
        let digest = Self::digest(&all);
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(digest.clone());
        late.map_or(Ok(Response::new(digest)), Err)
    }
}

impl NamedService for ItemsServer {
    const NAME: &'static str = "items.Items";
}

impl Service<http::Request<Body>> for ItemsServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let server = self.clone();
        let mut grpc = tonic::server::Grpc::new(Plain);
        Box::pin(async move {
            let response = match request.uri().path().rsplit('/').next() {
                Some("Read") => {
                    let serve = service_fn(move |request: Request<Bytes>| {
                        let (metadata, _, item) = request.into_parts();
                        server.clone().serve(metadata, stream::once(ready(Ok(item))))
                    });
                    grpc.server_streaming(serve, request).await
                }
                Some("List") => {
                    let serve = service_fn(move |request: Request<Bytes>| {
                        let (metadata, _, item) = request.into_parts();
                        server
                            .clone()
                            .serve(metadata, stream::iter([item.clone(), item.clone(), item].map(Ok)))
                    });
                    grpc.server_streaming(serve, request).await
                }
                Some("Write") => {
                    grpc.client_streaming(service_fn(move |request| server.clone().write(request)), request)
                        .await
                }
                Some("Talk") => {
                    let serve = service_fn(move |request: Request<Streaming<Bytes>>| {
                        let (metadata, _, messages) = request.into_parts();
                        server.clone().serve(metadata, messages)
                    });
                    grpc.streaming(serve, request).await
                }
                _ => Status::unimplemented("there is no such method").into_http(),
            };
            Ok(response)
        })
    }
}

impl fmt::Debug for ItemsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemsServer").finish_non_exhaustive()
    }
}

// --- Plain ---

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
