//! Stores what is abnormal in the supervision log in the root database, in batches, and lets old records of
//! the audit go. The node starts it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_store::WriteContext;
use iris_store::root::{AUDIT_RECORDS_TRIMMED_MAX, RecordSupervision, TrimAudit, Trimmed};
use serde_json::{Value, json};

use crate::root::Root;
use crate::supervision::{Address, Supervise, Vitals};
use crate::{Services, record};

/// How long records are gathered before they are stored.
const BATCH_AFTER: Duration = Duration::from_millis(200);
/// Records of one batch.
const BATCH_MAX: usize = 256;
/// Records that are kept in the root database.
const RECORDS_KEPT_MAX: usize = 10_000;
/// How long they are kept, in milliseconds.
const KEPT_FOR_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// How often old records of the audit are let go.
const TRIM_EVERY: Duration = Duration::from_hours(1);

/// The recorder actor.
pub(crate) struct Recorder {
    vitals: Arc<Vitals>,
    services: Arc<Services>,
    root: Address<Root>,
}

impl Recorder {
    pub(crate) fn new(vitals: Arc<Vitals>, services: Arc<Services>, root: Address<Root>) -> Self {
        Self { vitals, services, root }
    }

    /// Stores all that waits.
    async fn store(services: Arc<Services>, root: Address<Root>) {
        let log = services.supervision.log();
        loop {
            let records = log.take_waiting(BATCH_MAX);
            let count = records.len();
            if count == 0 {
                return;
            }
            let keep_since = services.clock.now_ms().saturating_sub(KEPT_FOR_MS);
            let command = RecordSupervision { records, keep_max: RECORDS_KEPT_MAX, keep_since };
            if let Err(error) = record(&root, command, WriteContext::default()).await {
                log.lost(count);
                tracing::error!(%error, count, "records of the supervision log were not stored");
            }
        }
    }

    /// Lets records of the audit go until none is too old or too many; what fails is tried again the next
    /// time.
    async fn trim(services: &Services, root: &Address<Root>) {
        let settings = services.settings.audit;
        let age = settings.kept.map(|kept| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        loop {
            let at = services.clock.now_ms();
            let before = age.map(|age| at.saturating_sub(age));
            let command = TrimAudit { before, keep_max: settings.records_max, at };
            match record(root, command, WriteContext::default()).await.map(|done| done.output) {
                Ok(Trimmed::Records(count)) if count >= AUDIT_RECORDS_TRIMMED_MAX => {}
                Ok(Trimmed::Records(_)) => return,
                Ok(Trimmed::Damaged(damage)) => {
                    tracing::error!(%damage, "the audit is not what it was: nothing of it is let go");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "old records of the audit were not let go");
                    return;
                }
            }
        }
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (services, root) = (Arc::clone(&self.services), self.root.clone());
        let storing = async move {
            loop {
                services.supervision.log().something_waits().await;
                tokio::time::sleep(BATCH_AFTER).await;
                Self::store(Arc::clone(&services), root.clone()).await;
            }
        };
        ctx.spawn(storing.into_actor(self));
        let (services, root) = (Arc::clone(&self.services), self.root.clone());
        let trimming = async move {
            loop {
                Self::trim(&services, &root).await;
                tokio::time::sleep(TRIM_EVERY).await;
            }
        };
        ctx.spawn(trimming.into_actor(self));
    }
}

crate::supervised!(Recorder);

impl Supervise for Recorder {
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        Ok(Self::new(Arc::clone(&self.vitals), Arc::clone(&self.services), self.root.clone()))
    }

    fn observe(&self) -> Value {
        json!({ "dropped": self.services.supervision.log().dropped() })
    }
}

/// Ask: stores all that waits, now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StoreNow;

impl Handler<StoreNow> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StoreNow, _: &mut Context<Self>) -> Self::Result {
        Box::pin(Self::store(Arc::clone(&self.services), self.root.clone()))
    }
}
