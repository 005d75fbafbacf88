// SPDX-License-Identifier: Apache-2.0
//! Runs the command line of the crate, and adds nothing to it.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ostree_ext::cli::run_from_iter(std::env::args_os()).await
}
