//! Master keys: which there are and what they still wrap.

use prost::Message;
use sluice_proto::admin::v1::master_key_service_server::MasterKeyService;
use sluice_proto::admin::v1::{ListMasterKeysRequest, ListMasterKeysResponse, MasterKey};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::error::Failure;
use crate::paging::List;

#[async_trait]
impl MasterKeyService for Services {
    async fn list_master_keys(&self, request: Request<ListMasterKeysRequest>) -> Answer<ListMasterKeysResponse> {
        pack(self.list_keys(request.get_ref()).await)
    }
}

impl Services {
    async fn list_keys(&self, asked: &ListMasterKeysRequest) -> Result<ListMasterKeysResponse, Failure> {
        let shared = &self.0;
        let list = List::new(&shared.secrets, &["masterKeys"]);
        let page = list.page(asked.page_size, &asked.page_token)?;
        let ring = shared.secrets.ring();
        let references = shared.store.read().await?.key_references().await?;
        let key = |id: &str| {
            let primary = id == ring.primary();
            let data_keys = references.iter().find(|(key_id, _)| key_id == id).map_or(0, |(_, count)| *count);
            MasterKey { name: format!("masterKeys/{id}"), primary, data_keys, removable: !primary && data_keys == 0 }
        };
        let after = page.after.as_deref().unwrap_or_default();
        let mut ids: Vec<&str> = ring.ids().filter(|id| *id > after).collect();
        ids.sort_unstable();
        let mut master_keys: Vec<MasterKey> = ids.into_iter().map(key).collect();
        let next_page_token = list.cut(&page, &mut master_keys, Message::encoded_len, |key| {
            key.name.strip_prefix("masterKeys/").unwrap_or_default().to_owned()
        });
        Ok(ListMasterKeysResponse { master_keys, next_page_token })
    }
}
