//! A consistent copy of the database, while it works.

use std::fs::File;
use std::io;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{FILE, SqliteStore, classify};
use crate::store::{BackedUp, StoreError};

impl SqliteStore {
    pub(super) async fn back_up(&self, folder: &Path) -> Result<BackedUp, StoreError> {
        let path = folder.join(FILE);
        let Some(text) = path.to_str() else {
            return Err(StoreError::Refused("the folder's name is not UTF-8".to_owned()));
        };
        // A connection of its own: the copy takes long, and lists go on meanwhile.
        let mut source = self.options().read_only(true).connect().await.map_err(|error| classify(&error))?;
        sqlx::query("VACUUM INTO ?").bind(text).execute(&mut source).await.map_err(|error| classify(&error))?;
        source.close().await.map_err(|error| classify(&error))?;
        let bytes = sync(&path).await.map_err(|error| StoreError::Trouble(format!("backup: {error}")))?;
        // What the copy holds, not what the queue holds by now.
        let mut copy = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .connect()
            .await
            .map_err(|error| classify(&error))?;
        let body_files = sqlx::query_scalar("SELECT body_file FROM messages WHERE body_file IS NOT NULL")
            .fetch_all(&mut copy)
            .await
            .map_err(|error| classify(&error))?;
        let messages: i64 = sqlx::query_scalar("SELECT count(*) FROM messages")
            .fetch_one(&mut copy)
            .await
            .map_err(|error| classify(&error))?;
        copy.close().await.map_err(|error| classify(&error))?;
        Ok(BackedUp { body_files, messages: u64::try_from(messages).unwrap_or(0), bytes })
    }
}

async fn sync(path: &Path) -> io::Result<u64> {
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || {
        let file = File::open(&path)?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(file.metadata()?.len())
    });
    done.await.map_err(io::Error::other)?
}
