//! ReadBody and Export: bodies out.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use posthouse_proto::queue::v1 as proto;
use tonic::Status;

use super::{Answers, Service};
use crate::bodies::BodyStore;
use crate::model::{CHUNK_MAX_BYTES, MessageMeta, State};
use crate::store::{Selection, Store};
use crate::wire;

/// Octets of a file that are read at a time: several chunks, one journey to a blocking thread.
const READ_BYTES: usize = 512 << 10;

fn not_found() -> Status {
    Status::not_found("there is no such message")
}

fn chunks(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let n = bytes.len().min(CHUNK_MAX_BYTES);
        (n > 0).then(|| bytes.split_to(n))
    })
}

impl<S: Store, B: BodyStore> Service<S, B> {
    async fn meta(&self, id: &str) -> Result<MessageMeta, Status> {
        let id = wire::message_id(id)?;
        self.inner.store.message(&id).await.map_err(|error| wire::status(&error))?.ok_or_else(not_found)
    }

    pub(super) async fn stream_body(
        &self,
        request: proto::ReadBodyRequest,
    ) -> Result<Answers<proto::ReadBodyResponse>, Status> {
        let meta = self.meta(&request.message_id).await?;
        self.body_of(meta, request.offset).await
    }

    pub(super) async fn stream_text(
        &self,
        request: proto::ExportRequest,
    ) -> Result<Answers<proto::ReadBodyResponse>, Status> {
        let meta = self.meta(&request.message_id).await?;
        let variants = self.inner.store.variants(meta.seq).await.map_err(|error| wire::status(&error))?;
        let variant = variants.into_iter().nth(request.variant as usize);
        let header = variant.ok_or_else(|| Status::not_found("there is no such variant"))?.header;
        let body = self.body_of(meta, 0).await?;
        let front = chunks(header).chain(std::iter::once(Bytes::from_static(b"\r\n")));
        let front = stream::iter(front.map(|bytes| Ok(wire::chunk(bytes))).collect::<Vec<_>>());
        Ok(front.chain(body).boxed())
    }

    async fn body_of(&self, meta: MessageMeta, offset: u64) -> Result<Answers<proto::ReadBodyResponse>, Status> {
        let Some(name) = meta.body_file.clone() else {
            let body = self.inner.store.body(meta.seq).await.map_err(|error| wire::status(&error))?;
            let mut body = body.ok_or_else(not_found)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
            let rest = body.split_off(start);
            return Ok(stream::iter(chunks(rest).map(|bytes| Ok(wire::chunk(bytes)))).boxed());
        };
        // The first read is made here, so that a body that is missing is an error of the call.
        let first = match self.inner.bodies.read(&name, offset, READ_BYTES).await {
            Ok(first) => first,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.body_is_missing(&meta).await);
            }
            Err(error) => return Err(Status::unavailable(format!("body not read: {error}"))),
        };
        let after = offset + first.len() as u64;
        let (bodies, size) = (Arc::clone(&self.inner.bodies), meta.body_bytes);
        let rest = stream::try_unfold(after, move |at| {
            let (bodies, name) = (Arc::clone(&bodies), name.clone());
            async move {
                if at >= size {
                    return Ok(None);
                }
                let read = bodies.read(&name, at, READ_BYTES).await;
                let read = read.map_err(|error| Status::unavailable(format!("body not read: {error}")))?;
                if read.is_empty() {
                    return Err(Status::data_loss("the body's file is shorter than the body"));
                }
                let next = at + read.len() as u64;
                Ok(Some((read, next)))
            }
        });
        let all = stream::once(async move { Ok(first) }).chain(rest);
        let split = all.map_ok(|bytes| stream::iter(chunks(bytes).map(|bytes| Ok(wire::chunk(bytes)))));
        Ok(split.try_flatten().boxed())
    }

    /// A message whose body is gone is held with the reason, unless it left just now.
    async fn body_is_missing(&self, meta: &MessageMeta) -> Status {
        match self.inner.store.message(&meta.id).await {
            Ok(Some(_)) => {}
            _ => return not_found(),
        }
        tracing::error!(message_id = meta.id, "body file is missing, the message is held");
        let selection =
            Selection { message_ids: vec![meta.id.clone()], states: vec![State::Open], ..Selection::default() };
        if let Ok(found) = self.inner.store.select(&selection, 0, crate::model::RECIPIENTS_MAX as u32).await {
            let keys = found.into_iter().map(|one| (one.recipient.key, one.recipient.route)).collect();
            self.inner.writer.set_aside(keys, "the body's file is missing".to_owned());
        }
        Status::data_loss("the body's file is missing")
    }
}
