//! A model that is asked with somebody's own key.

use std::sync::Arc;

use crate::provider::ApiKey;
use crate::{Model, ModelRequest, ModelStream};

/// The same model, asked with `key` in place of the one in the configuration.
pub fn with_key(model: Arc<dyn Model>, key: ApiKey) -> Arc<dyn Model> {
    Arc::new(Keyed { model, key })
}

struct Keyed {
    model: Arc<dyn Model>,
    key: ApiKey,
}

impl Model for Keyed {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        self.model.stream(ModelRequest { api_key: Some(self.key.clone()), ..request })
    }

    fn shows_images(&self) -> Option<bool> {
        self.model.shows_images()
    }

    fn opaque_kind(&self) -> Option<&'static str> {
        self.model.opaque_kind()
    }
}
