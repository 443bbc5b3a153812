//! `spandrel pin`, `unpin`, `pins`: traces that stay when what is around them leaves.

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::clock::Clock;

use super::ask::{ServerArgs, style};
use super::client::error_of;
use super::print;
use super::render::pins_table;
use super::view::PinsView;

/// Flags of `pin`.
#[derive(clap::Args, Debug)]
pub(super) struct PinArgs {
    /// Trace id: 1 to 32 hex digits
    id: String,
    /// Why, at most 1 KiB
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
    /// How long: a duration, a time (RFC 3339), or never [default: 400d]
    #[arg(long = "for", value_name = "DURATION")]
    time: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags of `unpin`.
#[derive(clap::Args, Debug)]
pub(super) struct UnpinArgs {
    /// Trace id: 1 to 32 hex digits
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags of `pins`.
#[derive(clap::Args, Debug)]
pub(super) struct PinsArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn pin(args: &PinArgs) -> anyhow::Result<()> {
    let mut body = json!({ "note": args.note });
    if let (Some(time), Some(body)) = (&args.time, body.as_object_mut()) {
        let _none = body.insert("expires".to_owned(), json!(time));
    }
    let path = format!("/spandrel/v1/pins/{}", args.id);
    let reply = args.server.client()?.post(&path, "application/json", body.to_string().as_bytes())?;
    if reply.status != 200 {
        bail!("{}", error_of(reply.body));
    }
    if args.server.json {
        return print(&(reply.body + "\n"));
    }
    let pin = serde_json::from_str(&reply.body).context("the answer is not of the shape expected")?;
    print(&pins_table(&PinsView { pins: vec![pin] }, Clock::system().now(), style()))
}

pub(super) fn unpin(args: &UnpinArgs) -> anyhow::Result<()> {
    args.server.client()?.delete(&format!("/spandrel/v1/pins/{}", args.id))?;
    print("its spans leave with what is around them\n")
}

pub(super) fn pins(args: &PinsArgs) -> anyhow::Result<()> {
    let json = args.server.client()?.get("/spandrel/v1/pins", &[])?;
    if args.server.json {
        return print(&(json + "\n"));
    }
    let view: PinsView = serde_json::from_str(&json).context("the answer is not of the shape expected")?;
    print(&pins_table(&view, Clock::system().now(), style()))
}
