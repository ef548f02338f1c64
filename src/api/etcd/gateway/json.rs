//! Messages as JSON, by their descriptors.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MethodDescriptor, SerializeOptions};

use crate::proto::ETCD_DESCRIPTORS;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(ETCD_DESCRIPTORS).unwrap_or_default());

/// A method of a service, with the shapes of its messages.
pub struct Method {
    descriptor: MethodDescriptor,
}

impl Method {
    /// By `package.Service/Method`.
    pub fn find(name: &str) -> Option<Self> {
        let (service, method) = name.split_once('/')?;
        let service = POOL.get_service_by_name(service)?;
        let descriptor = service.methods().find(|known| known.name() == method)?;
        Some(Self { descriptor })
    }

    /// Where gRPC finds it.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.descriptor.parent_service().full_name(), self.descriptor.name())
    }

    pub fn answers_with_a_stream(&self) -> bool {
        self.descriptor.is_server_streaming()
    }

    /// A watch lasts as long as somebody listens; other streams end with what was asked.
    pub fn asks_for_ever(&self) -> bool {
        self.descriptor.is_client_streaming() && self.descriptor.name() == "Watch"
    }

    /// The JSON documents of a body, encoded; none counts as an empty one.
    pub fn encode(&self, body: &[u8]) -> Result<Vec<Bytes>, serde_json::Error> {
        let mut encoded = Vec::new();
        let mut rest = body;
        while !rest.trim_ascii().is_empty() {
            let mut documents = serde_json::Deserializer::from_slice(rest).into_iter::<serde_json::Value>();
            let Some(document) = documents.next() else { break };
            let document = document?;
            rest = &rest[documents.byte_offset()..];
            encoded.push(self.encode_one(document)?);
        }
        if encoded.is_empty() {
            encoded.push(Bytes::new());
        }
        Ok(encoded)
    }

    fn encode_one(&self, document: serde_json::Value) -> Result<Bytes, serde_json::Error> {
        let options = DeserializeOptions::new();
        let message = DynamicMessage::deserialize_with_options(self.descriptor.input(), document, &options)?;
        Ok(message.encode_to_vec().into())
    }

    /// An encoded answer as JSON; etcd's field names, and nothing that is not set.
    pub fn decode(&self, encoded: &[u8]) -> Option<String> {
        let message = DynamicMessage::decode(self.descriptor.output(), encoded).ok()?;
        let mut json = serde_json::Serializer::new(Vec::new());
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
        message.serialize_with_options(&mut json, &options).ok()?;
        String::from_utf8(json.into_inner()).ok()
    }
}
