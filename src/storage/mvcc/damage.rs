//! Silent damage on purpose, for the laboratory and for tests: a bit of a stored value
//! flips in this node's table alone, under checksums that are right again. Nothing but a
//! comparison with other replicas can notice.

use std::io;
use std::sync::Arc;

use redb::ReadableTable;

use super::row::RowRef;
use super::table::redb_error;
use super::worker::Flusher;

impl Flusher {
    /// Flips a bit in the middle of the key's newest value. On disk when it returns.
    pub(super) fn damage(&mut self, key: &[u8]) -> io::Result<()> {
        self.guarded(Self::flush)?;
        let (id, meta) = {
            let state = self.shared.state.read();
            let id = state.index.find(key, None).filter(|id| state.tail.get(*id).is_none());
            (id, state.view.meta.clone())
        };
        let id = id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the table has no such key"))?;
        self.table.write(|writer| {
            let stored = writer.rows.get(id.to_key()).map_err(redb_error)?;
            let mut encoded = stored.map(|row| row.value().to_vec()).unwrap_or_default();
            let value_len = RowRef::decode(&encoded)?.value.len();
            let middle = encoded.len() - value_len.div_ceil(2);
            let Some(byte) = encoded.get_mut(middle) else {
                return Err(io::Error::new(io::ErrorKind::NotFound, "an empty value has no bits to flip"));
            };
            *byte ^= 1;
            writer.rows.insert(id.to_key(), encoded.as_slice()).map_err(redb_error)?;
            Ok((meta, ()))
        })?;
        self.show(Arc::new(self.table.view()?), Vec::new(), Vec::new());
        self.table.forget_recent(id);
        Ok(())
    }
}
