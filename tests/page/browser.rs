//! A real browser: chromedriver and Chromium, one driver for all tests, a session for each.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Mutex;

use axum::http::Method;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde_json::{Value, json};

/// When this is set, a test that finds no browser fails.
const REQUIRED: &str = "LEASEHOLD_TEST_REQUIRE_BROWSER";

/// A page in a browser of its own. It is closed when its value is dropped.
pub struct Browser {
    /// To drive it.
    pub client: Client,
    _driver: Driver,
}

/// A chromedriver, killed with its browser when it is dropped.
struct Driver {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It and its browsers are a process group of their own.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// How a browser is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Width and height of its window.
    pub size: (u32, u32),
    /// Whether the reader likes it dark.
    pub dark: bool,
    /// Whether scripts run.
    pub scripts: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { size: (1280, 800), dark: false, scripts: true }
    }
}

fn program(names: &[&str]) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&paths).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

impl Browser {
    /// Opens one; `None`, said loudly, where there is none here.
    pub async fn open(setup: Setup) -> Option<Self> {
        let found = program(&["chromedriver"]).zip(program(&["chromium", "chromium-browser", "google-chrome"]));
        let Some((driver, chromium)) = found else {
            let required = std::env::var_os(REQUIRED).is_some();
            assert!(!required, "{REQUIRED} is set, and there is no chromedriver with a chromium on the PATH");
            // Past the capture of test output; fails only where nobody reads.
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no Chromium here (chromedriver): no page was shown");
            return None;
        };
        let (driver, port) = start(&driver);
        let (width, height) = setup.size;
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars=false".to_owned(),
            format!("--window-size={width},{height}"),
        ];
        if setup.dark {
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let scripts = if setup.scripts { 1 } else { 2 };
        let capabilities = json!({
            "goog:chromeOptions": {
                "binary": chromium,
                "args": args,
                "prefs": { "profile.managed_default_content_settings.javascript": scripts },
            },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("it is written above") };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("the browser opens");
        Some(Self { client, _driver: driver })
    }

    /// Goes to a page.
    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.expect("the page is there");
    }

    /// What a piece of JavaScript returns.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until an expression is true in the page.
    pub async fn until(&self, condition: &str) {
        // The page is asked to look at each frame, and answers when it is so.
        let script = format!(
            "const done = arguments[0], end = performance.now() + 25000;
             const look = () => {{
                 let holds = false;
                 try {{ holds = {condition}; }} catch (error) {{ holds = false; }}
                 if (holds) done(true); else if (performance.now() > end) done(false); else setTimeout(look, 10);
             }};
             look();"
        );
        let held = self.client.execute_async(&script, Vec::new()).await.expect("the script runs");
        if held != Value::Bool(true) {
            let told = self.run("return document.body.innerText.slice(0, 500)").await;
            panic!("waited in vain for: {condition}\n{}", told.as_str().unwrap_or_default());
        }
    }

    /// What the browser complained about: the page's policy where something broke it, and its script's errors.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(BrowserLog).await.expect("the console is read");
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Keeps a picture of the page under `target/page`, for people to look at.
    pub async fn picture(&self, name: &str) {
        static FOLDER: Mutex<()> = Mutex::new(());
        let picture = self.client.screenshot().await.expect("a picture");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
        let _one_at_a_time = FOLDER.lock();
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("a picture is kept");
    }
}

/// Starts a driver on a port of its own choice.
fn start(program: &Path) -> (Driver, u16) {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(program)
        .arg("--port=0")
        .env("TMPDIR", folder.path())
        .env("HOME", folder.path())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let port = lines.find_map(|line| {
        let line = line.ok()?;
        line.strip_prefix("ChromeDriver was started successfully on port ")?.trim_end_matches('.').parse().ok()
    });
    // Whatever else it says is read, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    let driver = Driver { child, _folder: folder };
    (driver, port.expect("chromedriver says its port"))
}

/// chromedriver's own command for the browser's console.
#[derive(Debug)]
struct BrowserLog;

impl fantoccini::wd::WebDriverCompatibleCommand for BrowserLog {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
