//! Recording what a session asks model providers, and reading that.

use iris_protocol::{
    ApiError, Capture, CaptureList, CapturePayload, CaptureRead, CaptureStart, CaptureStop,
    limits::{
        CAPTURE_BYTES_DEFAULT, CAPTURE_BYTES_MAX, CAPTURE_BYTES_MIN, CAPTURE_MINUTES_DEFAULT,
        CAPTURE_MINUTES_MAX,
    },
};
use iris_store::project::{StartCapture, StopCapture};
use iris_store::{Committed, WriteContext};

use super::projects::page_size;
use super::{Done, Grant, done, stored};
use crate::{Node, record, write};

const MINUTE_MS: i64 = 60_000;

pub(super) async fn start(
    node: &Node,
    grant: &Grant,
    request: CaptureStart,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let at = node.services.clock.now_ms();
    let until = until(&request, at)?;
    let bytes_max = request.bytes_max.unwrap_or(CAPTURE_BYTES_DEFAULT);
    if !(CAPTURE_BYTES_MIN..=CAPTURE_BYTES_MAX).contains(&bytes_max) {
        let message = format!("`bytesMax` must be {CAPTURE_BYTES_MIN} to {CAPTURE_BYTES_MAX}");
        return Err(ApiError::invalid(message).detail("field", "bytesMax"));
    }
    let project = grant.project(node).await?;
    let command = StartCapture {
        session_id: request.session_id,
        until,
        bytes_max,
        by: grant.user_id()?.clone(),
        quotas: node.services.settings.quotas,
        at,
    };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

/// When it is to end.
fn until(request: &CaptureStart, now: i64) -> Result<i64, ApiError> {
    let most = now.saturating_add(i64::from(CAPTURE_MINUTES_MAX) * MINUTE_MS);
    match (request.minutes, request.expires_at) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("`minutes` and `expiresAt` exclude each other"))
        }
        (None, Some(at)) if at > now && at <= most => Ok(at),
        (None, Some(_)) => {
            let message =
                format!("`expiresAt` must be within the next {CAPTURE_MINUTES_MAX} minutes");
            Err(ApiError::invalid(message).detail("field", "expiresAt"))
        }
        (minutes, None) => {
            let minutes = minutes.unwrap_or(CAPTURE_MINUTES_DEFAULT);
            if !(1..=CAPTURE_MINUTES_MAX).contains(&minutes) {
                let message = format!("`minutes` must be 1 to {CAPTURE_MINUTES_MAX}");
                return Err(ApiError::invalid(message).detail("field", "minutes"));
            }
            Ok(now.saturating_add(i64::from(minutes) * MINUTE_MS))
        }
    }
}

pub(super) async fn stop(
    node: &Node,
    grant: &Grant,
    request: CaptureStop,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let command = StopCapture {
        session_id: request.session_id,
        discard: request.discard.unwrap_or(false),
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    // It ends something: whatever else waits, it gets through.
    answer(record(&project.address, command, context).await.map_err(stored)?)
}

fn answer(changed: Committed<Capture>) -> Result<Done, ApiError> {
    let Committed { output: capture, seq, replayed } = changed;
    Ok(done(CapturePayload { capture })?.at(seq, replayed))
}

pub(super) async fn list(
    node: &Node,
    grant: &Grant,
    request: CaptureList,
) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let project = grant.project(node).await?;
    done(project.reader.capture(request.session_id, limit, request.cursor).await.map_err(stored)?)
}

/// One exchange whole. What was told to be secret since it was recorded is hidden too.
pub(super) async fn read(
    node: &Node,
    grant: &Grant,
    request: CaptureRead,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let found = project.reader.captured(request.session_id, request.capture_id).await;
    let mut found = found.map_err(stored)?.ok_or_else(|| ApiError::not_found("capture"))?;
    let secrets = &project.kept.secrets;
    secrets.mask_in(&mut found.request);
    secrets.mask_in(&mut found.response);
    done(found)
}
