//! Reading a body: from the lease, or from the queue in chunks.

use bytes::Bytes;
use node::Wire;
use posthouse_proto::queue::v1::queue_client::QueueClient;
use posthouse_proto::queue::v1::{ReadBodyRequest, ReadBodyResponse};
use tonic::Streaming;

/// The body could not be read: trouble of ours, transient.
#[derive(Debug, thiserror::Error)]
#[error("body cannot be read from the queue: {0}")]
pub(crate) struct BodyError(#[from] tonic::Status);

/// Gives the octets of a body, chunk by chunk.
pub(crate) struct BodyReader {
    source: Source,
}

enum Source {
    Inline(Bytes),
    NotAsked(Box<QueueClient<Wire>>, String),
    Stream(Box<Streaming<ReadBodyResponse>>),
    Ended,
}

impl BodyReader {
    pub(crate) fn inline(body: Bytes) -> Self {
        Self { source: Source::Inline(body) }
    }

    pub(crate) fn from_queue(queue: QueueClient<Wire>, message_id: String) -> Self {
        Self { source: Source::NotAsked(Box::new(queue), message_id) }
    }

    /// The next chunk; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Ended => return Ok(None),
                Source::Inline(body) if body.is_empty() => return Ok(None),
                Source::Inline(body) => return Ok(Some(body)),
                Source::NotAsked(mut queue, message_id) => {
                    let stream = queue.read_body(ReadBodyRequest { message_id, offset: 0 }).await?.into_inner();
                    self.source = Source::Stream(Box::new(stream));
                }
                Source::Stream(mut stream) => {
                    // An end without an error has its trailers behind it: the stream is read to its end.
                    let Some(response) = stream.message().await? else { return Ok(None) };
                    self.source = Source::Stream(stream);
                    if !response.chunk.is_empty() {
                        return Ok(Some(response.chunk));
                    }
                }
            }
        }
    }
}

impl Drop for BodyReader {
    /// A stream that is dropped half read costs its connection a reset (HTTP/2); it is read to its trailers instead.
    fn drop(&mut self) {
        if let Source::Stream(mut stream) = std::mem::replace(&mut self.source, Source::Ended)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { while let Ok(Some(_)) = stream.message().await {} });
        }
    }
}
