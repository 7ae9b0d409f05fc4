//! nginx with nchan, with a prefix and a configuration of its own.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::descriptor;
use crate::make::Make;
use crate::node::NodeError;
use crate::node::rival::store::{Nginx, Store};
use crate::node::rival::{Launch, Rival, RivalPlan, seconds, start_listening};

const CONFIGURATION_FILE: &str = "nginx.conf";
const DIRECTORY_OF_PACKAGE: &str = "/var/lib/nginx";
/// What makes lines cheap and quick, from the documents of both.
const TUNED_HTTP: &str = "
    nchan_shared_memory_size 512M;
    connection_pool_size 256;
    request_pool_size 1k;
    client_header_buffer_size 512;
    client_body_buffer_size 1k;
    large_client_header_buffers 2 2k;
    reset_timedout_connection on;
    server_tokens off;";

/// Starts it, and waits until it listens.
pub(super) fn start(plan: &RivalPlan, progress: &impl Fn(&str)) -> Result<Rival, NodeError> {
    let nginx = Store::open().nginx()?;
    // Its limit is ours, at the moment we start it.
    let files = descriptor::limit()?;
    progress("starting nginx");
    let launch = |address, prefix: &Path| {
        let configuration = configuration(plan, &nginx, prefix, address, files);
        fs::write(prefix.join(CONFIGURATION_FILE), &configuration)?;
        let (program, arguments) = command(&nginx, prefix)?;
        Ok(Launch {
            program,
            arguments,
            configuration,
        })
    };
    let (child, ready, configuration) = start_listening(launch)?;
    let note = format!(
        "nginx {} with this configuration:\n{configuration}",
        nginx.version
    );
    Ok(Rival {
        child,
        ready,
        notes: vec![note],
    })
}

/// nchan insists on a directory that Debian's package makes, whatever the configuration says. Where there is none, or none
/// for us, nginx gets a view of the file system in which there is.
fn command(nginx: &Nginx, prefix: &Path) -> io::Result<(PathBuf, Vec<String>)> {
    let path = |name: &str| prefix.join(name).display().to_string();
    let program = nginx.program.display().to_string();
    let arguments = [
        "-p",
        &path(""),
        "-c",
        &path(CONFIGURATION_FILE),
        "-e",
        "stderr",
    ];
    let arguments = arguments.map(str::to_owned);
    let is_root = Uid::effective().is_root();
    if is_root && Path::new(DIRECTORY_OF_PACKAGE).exists() {
        return Ok((program.into(), arguments.into()));
    }
    fs::create_dir_all(prefix.join("lib/nginx"))?;
    let mut words = vec!["--mount".to_owned()];
    if !is_root {
        words.push("--map-root-user".to_owned());
    }
    let script = "mount --bind \"$0\" /var/lib && exec \"$@\"";
    words.extend(["sh", "-c", script, &path("lib"), &program].map(str::to_owned));
    words.extend(arguments);
    Ok(("unshare".into(), words))
}

/// What both have is what the run needs: room for its lines, keep-alive connections that are not ended after a thousand
/// requests, heartbeats like everybody's, no access log.
fn configuration(
    plan: &RivalPlan,
    nginx: &Nginx,
    prefix: &Path,
    address: SocketAddr,
    files: u32,
) -> String {
    let is_tuned = plan.make == Make::Nchan;
    let tuned = |text: &'static str| if is_tuned { text } else { "" };
    let prefix = prefix.display();
    let mut text = String::new();
    let mut put = |part: std::fmt::Arguments<'_>| {
        let written = text.write_fmt(part);
        debug_assert!(written.is_ok(), "a string takes every byte");
    };
    put(format_args!(
        "load_module {};\nuser root;\ndaemon off;\nworker_processes {};\npid {prefix}/nginx.pid;\nerror_log stderr error;\n",
        nginx.module.display(),
        plan.threads,
    ));
    let accept = tuned(" multi_accept on;");
    put(format_args!(
        "events {{ worker_connections {files};{accept} }}\nhttp {{\n"
    ));
    put(format_args!(
        "    access_log off;\n    keepalive_requests 1000000000;\n    keepalive_timeout 1h;{}\n",
        tuned(TUNED_HTTP)
    ));
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        put(format_args!("    {kind}_temp_path {prefix}/{kind};\n"));
    }
    let listen = tuned(" reuseport backlog=4096");
    let ping = seconds(plan.ping_after);
    put(format_args!(
        "    server {{\n        listen {address}{listen};\n        location ~ ^/line/(.+)$ {{\n            \
         nchan_subscriber websocket;\n            nchan_channel_id $1;\n            \
         nchan_websocket_ping_interval {ping};\n        }}\n        location ~ ^/push/(.+)$ {{\n            \
         nchan_publisher http;\n            nchan_channel_id $1;\n{}        }}\n    }}\n}}\n",
        tuned("            nchan_store_messages off;\n"),
    ));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(make: Make) -> String {
        let plan = RivalPlan {
            make,
            program: None,
            threads: 3,
            ping_after: Duration::from_millis(1_500),
        };
        let nginx = Nginx {
            program: "/n/nginx".into(),
            module: "/n/nchan.so".into(),
            version: "1".to_owned(),
        };
        let address = "127.0.0.1:9".parse().unwrap();
        configuration(&plan, &nginx, Path::new("/prefix"), address, 500)
    }

    #[test]
    fn both_configurations_have_room_and_heartbeats_and_only_one_is_tuned() {
        for make in [Make::Nchan, Make::NchanDefault] {
            let text = text(make);
            for part in [
                "load_module /n/nchan.so;",
                "worker_processes 3;",
                "worker_connections 500;",
                "listen 127.0.0.1:9",
                "nchan_websocket_ping_interval 2;",
                "access_log off;",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
            assert_eq!(text.contains("request_pool_size"), make == Make::Nchan);
            assert_eq!(text.matches('{').count(), text.matches('}').count());
        }
    }
}
