//! Accept: a body, then a commit.

use bytes::{Bytes, BytesMut};
use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::accept_request::Step;
use tonic::{Status, Streaming};

use super::Service;
use crate::bodies::{BodyStore, BodyUpload};
use crate::context::Trouble;
use crate::model::{Body, CHUNK_MAX_BYTES};
use crate::store::{Store, StoreError};
use crate::wire;

/// A body on its way in: in memory up to the threshold, then in a file.
struct Incoming<U> {
    chunks: Vec<Bytes>,
    bytes: u64,
    upload: Option<U>,
}

impl<S: Store, B: BodyStore> Service<S, B> {
    /// A body that could not be written: known to whoever looks at the queue's health, until a body goes in again.
    fn not_stored(&self, error: &std::io::Error) -> Status {
        let reason = format!("body not stored: {error}");
        self.inner.condition.set(Trouble::Bodies, Some(reason.clone()));
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Status::resource_exhausted(reason),
            _ => Status::unavailable(reason),
        }
    }
}

impl<S: Store, B: BodyStore> Service<S, B> {
    pub(super) async fn take_message(
        &self,
        mut steps: Streaming<proto::AcceptRequest>,
    ) -> Result<proto::AcceptResponse, Status> {
        let inner = &*self.inner;
        let _working = inner.drain.as_ref().map(node::Drain::guard);
        let inline_max = inner.settings.body_inline_max_bytes();
        let mut incoming = Incoming { chunks: Vec::new(), bytes: 0, upload: None };
        while let Some(request) = steps.message().await? {
            match request.step {
                Some(Step::Chunk(chunk)) => {
                    if chunk.len() > CHUNK_MAX_BYTES {
                        return Err(Status::invalid_argument(format!(
                            "a chunk is larger than {CHUNK_MAX_BYTES} bytes"
                        )));
                    }
                    if incoming.bytes == 0 {
                        self.has_room()?;
                    }
                    self.take_chunk(&mut incoming, chunk, inline_max).await?;
                }
                Some(Step::Commit(commit)) => {
                    self.has_room()?;
                    let response = self.commit(incoming, commit).await?;
                    // Read to its end: a stream that is dropped early is a reset to the other side.
                    while steps.message().await?.is_some() {}
                    return Ok(response);
                }
                Some(Step::Abort(proto::Abort {})) => return Err(Status::cancelled("aborted by the caller")),
                None => return Err(Status::invalid_argument("a request holds no step")),
            }
        }
        Err(Status::cancelled("the stream ended without commit"))
    }

    fn has_room(&self) -> Result<(), Status> {
        if !self.inner.space.is_enough() {
            return Err(Status::resource_exhausted("free space is below the watermark"));
        }
        Ok(())
    }

    async fn take_chunk(
        &self,
        incoming: &mut Incoming<B::Upload>,
        chunk: Bytes,
        inline_max: u64,
    ) -> Result<(), Status> {
        incoming.bytes += chunk.len() as u64;
        if incoming.upload.is_none() && incoming.bytes > inline_max {
            let mut upload = self.inner.bodies.begin().await.map_err(|error| self.not_stored(&error))?;
            for earlier in incoming.chunks.drain(..) {
                upload.write(earlier).await.map_err(|error| self.not_stored(&error))?;
            }
            incoming.upload = Some(upload);
        }
        match &mut incoming.upload {
            Some(upload) => upload.write(chunk).await.map_err(|error| self.not_stored(&error)),
            None => {
                incoming.chunks.push(chunk);
                Ok(())
            }
        }
    }

    async fn commit(
        &self,
        incoming: Incoming<B::Upload>,
        commit: proto::Commit,
    ) -> Result<proto::AcceptResponse, Status> {
        let id = wire::message_id(&commit.message_id)?;
        let Incoming { chunks, bytes, upload } = incoming;
        let file = upload.is_some().then(|| {
            // A name that nothing has had: a second commit of an id must not touch the first one's body.
            format!("{id}-{:08x}", rand::random::<u32>())
        });
        let body = match &file {
            Some(name) => Body::File(name.clone()),
            None => Body::Inline(join(chunks)),
        };
        let accepted = wire::commit(commit, body, bytes)?;
        if let (Some(upload), Some(name)) = (upload, &file) {
            // The file and its name are durable before the row that speaks of them.
            upload.finish(name).await.map_err(|error| self.not_stored(&error))?;
        }
        let result = self.inner.writer.accept(accepted).await;
        if let (Some(name), Ok(true) | Err(StoreError::Refused(_))) = (file, &result) {
            self.inner.cleaner.delete(vec![name]);
        }
        match result {
            Ok(already_present) => Ok(proto::AcceptResponse { already_present }),
            Err(error) => Err(wire::status(&error)),
        }
    }
}

/// One run of octets of its own: what came over the wire is a slice of a buffer that is several times as large, and would
/// keep all of it as long as the message stays in memory.
fn join(chunks: Vec<Bytes>) -> Bytes {
    let mut joined = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        joined.extend_from_slice(&chunk);
    }
    joined.freeze()
}
