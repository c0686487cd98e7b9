//! Stores what is abnormal in the supervision log in the root database, in batches. The node starts it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_store::WriteContext;
use iris_store::root::RecordSupervision;
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
