// SPDX-License-Identifier: Apache-2.0
//! A parent that speaks to the proxy through the crate `containers-image-proxy`.
//!
//! `parent [OPTION]... COMMAND REFERENCE...` does what the command says with each image, in one conversation, and
//! prints one JSON object a line. It ends with an error unless the proxy ends well after `finalize`.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use containers_image_proxy::oci_spec::image::{Descriptor, ImageManifest};
use containers_image_proxy::{ImageProxy, ImageProxyConfig, OpenedImage};
use futures_util::future::{join_all, try_join_all};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

const USAGE: &str = "parent [--program FILE] [--auth-data FILE] [--authfile FILE] [--no-creds] [--cert-dir DIR] \
    [--decryption-key KEY] [--no-tls-verify] [--insecure-policy] [--user-agent-prefix TEXT] \
    read|together|leave|absent|fail|unfinished|open REFERENCE...";

struct Arguments {
    config: ImageProxyConfig,
    command: String,
    references: Vec<String>,
}

fn parse_arguments() -> Result<Arguments> {
    let mut config = ImageProxyConfig::default();
    let mut words = std::env::args().skip(1);
    let command = loop {
        let word = words.next().context(USAGE)?;
        let mut value = || words.next().context(USAGE);
        match word.as_str() {
            "--program" => config.skopeo_cmd = Some(Command::new(value()?)),
            "--auth-data" => config.auth_data = Some(File::open(value()?)?),
            "--authfile" => config.authfile = Some(PathBuf::from(value()?)),
            "--no-creds" => config.auth_anonymous = true,
            "--cert-dir" => config.certificate_directory = Some(PathBuf::from(value()?)),
            "--decryption-key" => config.decryption_keys = Some(vec![value()?]),
            "--no-tls-verify" => config.insecure_skip_tls_verification = Some(true),
            "--insecure-policy" => config.insecure_policy = Some(true),
            "--user-agent-prefix" => config.user_agent_prefix = Some(value()?),
            _ => break word,
        }
    };
    Ok(Arguments { config, command, references: words.collect() })
}

/// Length and digest of everything that `reader` has.
async fn measure(mut reader: impl AsyncRead + Unpin) -> Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 64 * 1024];
    let mut size = 0u64;
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok((size, format!("sha256:{}", hex::encode(hasher.finalize()))));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

fn digest_of(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

/// One blob in each of the ways that the crate has.
async fn read_blob(proxy: &ImageProxy, image: &OpenedImage, blob: &Descriptor) -> Result<Value> {
    let (reader, driver) = proxy.get_blob(image, blob.digest(), blob.size()).await?;
    let (by_blob, verdict) = tokio::join!(measure(reader), driver);
    verdict.context("get_blob")?;
    let (reader, driver) = proxy.get_descriptor(image, blob).await?;
    let (by_descriptor, verdict) = tokio::join!(measure(reader), driver);
    verdict.context("get_descriptor")?;
    let (size, reader, errors) = proxy.get_raw_blob(image, blob.digest()).await?;
    let (raw, verdict) = tokio::join!(measure(reader), errors);
    verdict.context("get_raw_blob")?;
    let (reader, driver) = proxy.get_blob_stream(image, blob.digest(), blob.size()).await?.into_parts();
    let (stream, verdict) = tokio::join!(measure(reader), driver);
    verdict.context("get_blob_stream")?;
    let found = by_blob?;
    for other in [by_descriptor?, raw?, stream?] {
        ensure!(other == found, "{other:?} in one way, {found:?} in another");
    }
    ensure!(size == Some(found.0), "announced {size:?}, found {found:?}");
    ensure!(found == (blob.size(), blob.digest().to_string()), "named {blob:?}, found {found:?}");
    Ok(json!(found.1))
}

/// The whole image: metadata, layer list, and every blob.
async fn read(proxy: &ImageProxy, reference: &str) -> Result<Value> {
    let image = proxy.open_image(reference).await?;
    let (digest, raw) = proxy.fetch_manifest_raw_oci(&image).await?;
    let manifest: ImageManifest = serde_json::from_slice(&raw)?;
    let config = proxy.fetch_config_raw(&image).await?;
    proxy.fetch_config(&image).await?;
    let layers = proxy.get_layer_info(&image).await?.context("no layer list")?;
    let layers: Vec<Value> =
        layers.iter().map(|each| json!([each.digest.to_string(), each.size, each.media_type.to_string()])).collect();
    let mut blobs = Vec::new();
    for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
        blobs.push(read_blob(proxy, &image, blob).await.with_context(|| blob.digest().to_string())?);
    }
    proxy.close_image(&image).await?;
    let manifest = digest_of(&raw);
    Ok(json!({"digest": digest, "manifest": manifest, "config": digest_of(&config), "layers": layers, "blobs": blobs}))
}

/// All layers beside each other, half of them raw, while metadata is asked for.
async fn together(proxy: &ImageProxy, reference: &str) -> Result<Value> {
    let image = proxy.open_image(reference).await?;
    let (_, manifest) = proxy.fetch_manifest(&image).await?;
    let transfers = manifest.layers().iter().enumerate().map(|(number, layer)| {
        let image = &image;
        async move {
            let (size, digest) = if number % 2 == 0 {
                let (reader, driver) = proxy.get_descriptor(image, layer).await?;
                let (found, verdict) = tokio::join!(measure(reader), driver);
                verdict?;
                found?
            } else {
                let (_, reader, errors) = proxy.get_raw_blob(image, layer.digest()).await?;
                let (found, verdict) = tokio::join!(measure(reader), errors);
                verdict?;
                found?
            };
            ensure!((size, digest.as_str()) == (layer.size(), layer.digest().as_ref()), "layer {number}");
            Ok(digest)
        }
    });
    let metadata = async {
        for _ in 0..20 {
            proxy.fetch_manifest_raw_oci(&image).await?;
            proxy.get_layer_info(&image).await?;
        }
        Ok::<_, anyhow::Error>(String::new())
    };
    let (digests, metadata) = tokio::join!(try_join_all(transfers), metadata);
    let _: String = metadata?;
    Ok(json!(digests?))
}

/// Each layer is left after its first bytes, in both ways; then one is read whole.
async fn leave(proxy: &ImageProxy, reference: &str) -> Result<Value> {
    let image = proxy.open_image(reference).await?;
    let (_, manifest) = proxy.fetch_manifest(&image).await?;
    let mut told = Vec::new();
    for layer in manifest.layers() {
        let mut first = vec![0u8; layer.size().min(10) as usize]; // there is no end of file before FinishPipe
        let (mut reader, driver) = proxy.get_descriptor(&image, layer).await?;
        reader.read_exact(&mut first).await?;
        drop(reader);
        told.push(json!(driver.await.err().map(|error| error.to_string())));
        let (_, mut reader, errors) = proxy.get_raw_blob(&image, layer.digest()).await?;
        reader.read_exact(&mut first).await?;
        drop(reader);
        told.push(json!(errors.await.err().map(|error| error.to_string())));
    }
    let last = manifest.layers().last().context("no layer")?;
    Ok(json!({"told": told, "blob": read_blob(proxy, &image, last).await?}))
}

/// What is said about an image that is not there.
async fn absent(proxy: &ImageProxy, reference: &str) -> Result<Value> {
    let optional = proxy.open_image_optional(reference).await;
    let opened = proxy.open_image(reference).await;
    let Err(error) = opened else { bail!("{reference} is there") };
    Ok(match optional {
        Ok(found) => json!({"optional": found.is_some(), "error": error.to_string(), "retryable": error.is_retryable()}),
        Err(optional) => json!({"optional": optional.to_string(), "error": error.to_string()}),
    })
}

/// What is said about layers that cannot be had: by the driver, by the error pipe.
async fn fail(proxy: &ImageProxy, reference: &str) -> Result<Value> {
    let image = proxy.open_image(reference).await?;
    let (_, manifest) = proxy.fetch_manifest(&image).await?;
    let mut told = Vec::new();
    for layer in manifest.layers() {
        let (reader, driver) = proxy.get_descriptor(&image, layer).await?;
        let (_, verdict) = tokio::join!(measure(reader), driver);
        let (_, reader, errors) = proxy.get_raw_blob(&image, layer.digest()).await?;
        let (_, raw) = tokio::join!(measure(reader), errors);
        told.push(json!([
            verdict.as_ref().err().map(|error| (error.to_string(), error.is_retryable())),
            raw.err().map(|error| error.to_string()),
        ]));
    }
    Ok(json!(told))
}

/// Many pipes that are read as older parents do: exactly so many bytes, and never finished.
async fn unfinished(proxy: &ImageProxy, reference: &str) -> Result<Value> {
    let image = proxy.open_image(reference).await?;
    let (_, manifest) = proxy.fetch_manifest(&image).await?;
    let config = manifest.config();
    let mut kept = Vec::new();
    for _ in 0..300 {
        let (mut reader, driver) = proxy.get_descriptor(&image, config).await?;
        let mut data = vec![0u8; config.size() as usize];
        reader.read_exact(&mut data).await?;
        ensure!(digest_of(&data) == config.digest().to_string(), "wrong bytes");
        kept.push((reader, driver));
    }
    proxy.fetch_manifest_raw_oci(&image).await?;
    Ok(json!(kept.len()))
}

/// Only opens, many at once.
async fn open(proxy: &ImageProxy, reference: &str) -> Result<Value> {
    let opened = join_all((0..8).map(|_| proxy.open_image(reference))).await;
    let mut opened = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
    let count = opened.len();
    while let Some(image) = opened.pop() {
        ensure!(!opened.contains(&image), "an id was given twice");
        proxy.close_image(&image).await?;
    }
    Ok(json!({"opened": count, "version": proxy.protocol_version().to_string()}))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = parse_arguments()?;
    let proxy = ImageProxy::new_with_config(arguments.config).await?;
    for reference in &arguments.references {
        let outcome = match arguments.command.as_str() {
            "read" => read(&proxy, reference).await,
            "together" => together(&proxy, reference).await,
            "leave" => leave(&proxy, reference).await,
            "absent" => absent(&proxy, reference).await,
            "fail" => fail(&proxy, reference).await,
            "unfinished" => unfinished(&proxy, reference).await,
            "open" => open(&proxy, reference).await,
            _ => bail!(USAGE),
        };
        println!("{}", outcome.with_context(|| reference.clone())?);
    }
    proxy.finalize().await?;
    Ok(())
}
