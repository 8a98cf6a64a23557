//! Our account at the CA: made once, its key kept in the CA's folder.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk, off_thread};
use super::failure::Failure;
use super::http::Https;
use crate::config::acme::Acme;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the CA was told.
    email: Option<String>,
    credentials: AccountCredentials,
}

/// The account; made where there is none.
pub(super) async fn account(acme: &Acme, disk: &Disk, https: Https) -> Result<Account, Failure> {
    let builder = Account::builder_with_http(Box::new(https));
    if let Some(kept) = kept(disk).await? {
        let text = serde_json::to_vec(&kept.credentials).map_err(Failure::local)?;
        let account = builder.from_credentials(kept.credentials).await?;
        if kept.email != acme.email {
            let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            account.update_contacts(&contact).await?;
            let credentials = serde_json::from_slice(&text).map_err(Failure::local)?;
            keep(acme, disk, credentials).await?;
        }
        return Ok(account);
    }
    let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        // The configuration is refused without it.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let eab = match &acme.eab {
        Some(eab) => {
            let key = BASE64_URL_SAFE_NO_PAD.decode(eab.mac_key.reveal());
            let key = key.map_err(Failure::local)?;
            Some(ExternalAccountKey::new(
                eab.key_id.reveal().to_owned(),
                &key,
            ))
        }
        None => None,
    };
    let (account, credentials) = builder
        .create(&new, acme.directory.clone(), eab.as_ref())
        .await?;
    keep(acme, disk, credentials).await?;
    tracing::info!(
        account = account.id(),
        directory = acme.directory,
        "an account was made, and the CA's terms agreed to"
    );
    Ok(account)
}

/// The account where there is one already: nobody makes one only to ask.
pub(super) async fn known(disk: &Disk, https: Https) -> Result<Option<Account>, Failure> {
    let Some(kept) = kept(disk).await? else {
        return Ok(None);
    };
    let builder = Account::builder_with_http(Box::new(https));
    Ok(Some(builder.from_credentials(kept.credentials).await?))
}

/// Forgets an account that the CA does not know.
pub(super) async fn set_aside(disk: &Disk) {
    let path = disk.account();
    let aside =
        off_thread(move || disk::set_aside(&path, &"the CA does not know the account")).await;
    if let Err(error) = aside {
        tracing::error!(%error, "a bug: the account cannot be set aside");
    }
}

async fn kept(disk: &Disk) -> Result<Option<Kept>, Failure> {
    let path = disk.account();
    let read = off_thread(move || match disk::read_json(&path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            disk::set_aside(&path, &error);
            Ok(None)
        }
        read => read,
    });
    read.await.flatten().map_err(Failure::local)
}

async fn keep(acme: &Acme, disk: &Disk, credentials: AccountCredentials) -> Result<(), Failure> {
    let kept = Kept {
        email: acme.email.clone(),
        credentials,
    };
    let path = disk.account();
    let written = off_thread(move || disk::write_json(&path, &kept)).await;
    written.flatten().map_err(Failure::local)
}
