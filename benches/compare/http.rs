//! HTTP without scans: requests per second of the service and of nginx, measured by wrk.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::loads::Figures;
use crate::service::Service;
use crate::tools::find_program;

/// The duration of one run of wrk.
const SECONDS: u32 = 3;

/// One worker, no log, and no limit of requests per connection. It runs as root of the namespace,
/// which has no other user.
const CONFIGURATION: &str = "\
user root; worker_processes 1; daemon off; pid FOLDER/pid; error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path FOLDER; proxy_temp_path FOLDER; fastcgi_temp_path FOLDER;
    uwsgi_temp_path FOLDER; scgi_temp_path FOLDER;
    server { listen ADDRESS; location / { return 200 \"ok\\n\"; } }
}
";

struct Nginx {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Nginx {
    fn start() -> Result<Self, String> {
        let path = find_program("nginx").ok_or("nginx is not installed")?;
        let to_text = |error: std::io::Error| format!("nginx cannot be started: {error}");
        let folder = std::env::temp_dir().join(format!("openports-nginx-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(to_text)?;
        // The port stays free, because no other program runs in this namespace.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(to_text)?;
        let address = free.local_addr().map_err(to_text)?;
        drop(free);
        let configuration = CONFIGURATION
            .replace("FOLDER", &folder.to_string_lossy())
            .replace("ADDRESS", &address.to_string());
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration).map_err(to_text)?;
        let mut command = Command::new(path);
        let command = command.arg("-p").arg(&folder).arg("-c").arg(&file);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().map_err(to_text)?;
        let nginx = Self { child, address, folder };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err("nginx does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(nginx)
    }
}

impl Nginx {
    /// Returns the process that handles requests, which is the only child of the master.
    fn worker(&self) -> Result<u32, String> {
        let master = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.map_err(|error| format!("nginx has exited: {error}"))?;
        children.trim().parse().map_err(|_| format!("nginx has workers {children:?}, not one"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // After SIGTERM the master ends its worker too.
        let stop = Command::new("kill").arg(self.child.id().to_string()).status();
        if !stop.is_ok_and(|status| status.success()) {
            drop(self.child.kill());
        }
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(Path::new(&self.folder)));
    }
}

/// A server whose throughput is measured.
#[derive(Clone, Copy)]
struct Server {
    address: SocketAddr,
    process: u32,
}

/// Measures requests per second of nginx and of this project's service, in alternation.
pub(crate) fn throughput() -> Result<Figures, String> {
    find_program("wrk").ok_or("wrk is not installed")?;
    let _lab = Lab::enter()
        .map_err(|error| error.to_string())?
        .start(Vec::new())
        .map_err(|error| error.to_string())?;
    let (nginx, service) = (Nginx::start()?, Service::start(&[])?);
    let peer = Server { address: nginx.address, process: nginx.worker()? };
    let own = Server { address: service.address, process: service.id() };
    let mut figures = Vec::new();
    for (server, path, connections, names) in [
        (peer, "/healthz", 1, ["nginx_1", "nginx_1_cpu"]),
        (own, "/healthz", 1, ["healthz_1", "healthz_1_cpu"]),
        (own, INVALID, 1, ["invalid_1", "invalid_1_cpu"]),
        (peer, "/healthz", 64, ["nginx_64", "nginx_64_cpu"]),
        (own, "/healthz", 64, ["healthz_64", "healthz_64_cpu"]),
        (own, INVALID, 64, ["invalid_64", "invalid_64_cpu"]),
    ] {
        let Server { address, process } = server;
        let before = cpu_seconds(process)?;
        let (rate, requests) = wrk(address, path, connections)?;
        let cpu_micros = (cpu_seconds(process)? - before) * 1e6 / requests;
        figures.extend(names.into_iter().zip([rate, cpu_micros]));
    }
    Ok(figures)
}

/// A request to which this project's service responds with 400.
const INVALID: &str = "/open-ports?toPort=x";

/// Returns the user and system time of a process (proc_pid_stat(5), in ticks of 10 ms).
fn cpu_seconds(process: u32) -> Result<f64, String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.map_err(|error| format!("the process has exited: {error}"))?;
    // The second field is the name, which may contain any character. The times are the fields 14
    // and 15.
    let (_, rest) = stat.rsplit_once(')').ok_or("the stat file has no times")?;
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).flat_map(str::parse::<f64>).sum();
    Ok(ticks / 100.0)
}

/// Returns the requests per second of one thread of wrk, and their number.
fn wrk(address: SocketAddr, path: &str, connections: u32) -> Result<(f64, f64), String> {
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{SECONDS}s")])
        .arg(format!("http://{address}{path}"))
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Socket errors") {
        return Err(format!("wrk reports errors: {}", text.trim().replace('\n', " ")));
    }
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let count = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    match rate.zip(count).map(|(rate, (count, _))| (rate.trim().parse(), count.parse())) {
        Some((Ok(rate), Ok(count))) => Ok((rate, count)),
        Some(_) | None => {
            Err(format!("the output of wrk cannot be parsed: {}", text.trim().replace('\n', " ")))
        }
    }
}
