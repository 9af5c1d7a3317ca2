//! A real browser without a window, driven over a pipe with the `DevTools` protocol.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

use crate::harness::LONG;

/// The browser, which reads commands from descriptor 3 and writes to descriptor 4.
const START: &str = r#"exec 3<&0 4>&1 </dev/null >/dev/null 2>&1; exec "$@""#;

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last: u64,
    session: String,
    /// What the page should not have done: exceptions, violations of the policy, other errors of the console.
    pub complaints: Vec<String>,
    /// The addresses that it has requested.
    pub requested: Vec<String>,
    _profile: tempfile::TempDir,
}

/// Chromium, if `scripts/test --all` has found or installed it; if not, prints that the test is skipped.
pub fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("MCP_LAUNCH_TEST_BROWSER").map(PathBuf::from);
    if path.is_none() {
        eprintln!("SKIPPED: MCP_LAUNCH_TEST_BROWSER is not set; scripts/test --all finds or installs Chromium");
    }
    path
}

impl Browser {
    /// Starts it with an empty page of this size.
    pub fn start(program: &Path, width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", START, "sh"])
            .arg(program)
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking", "--disable-extensions"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            last: 0,
            session: String::new(),
            complaints: Vec::new(),
            requested: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session.push_str(attached["sessionId"].as_str().unwrap());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.resize(width, height);
        browser
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Which colours the user likes: `light` or `dark`.
    pub fn prefer(&mut self, colours: &str) {
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": colours}]});
        self.call("Emulation.setEmulatedMedia", &feature);
    }

    /// Opens a page, and returns when it has been loaded.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.wait_until(&format!("location.href === {url:?} && document.readyState === 'complete'"));
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text that the page shows in an element.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        let value = self.value(&format!("document.querySelector({selector:?})?.innerText || ''"));
        value.as_str().unwrap().to_owned()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait_until(&mut self, expression: &str) {
        let deadline = Instant::now() + LONG;
        while self.value(expression) != Value::Bool(true) {
            let page = self.text("body");
            assert!(Instant::now() < deadline, "{expression} does not become true; the page shows:\n{page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Keeps a picture of the whole page, if a folder for pictures is named.
    pub fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("MCP_LAUNCH_TEST_PICTURES").map(PathBuf::from) else { return };
        let mut size = |what: &str| self.value(&format!("document.documentElement.scroll{what}"));
        let clip = json!({"x": 0, "y": 0, "width": size("Width"), "height": size("Height"), "scale": 1});
        let whole = json!({"captureBeyondViewport": true, "clip": clip});
        let picture = self.call("Page.captureScreenshot", &whole);
        let bytes = Base64::decode_vec(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// Carries out a command, and returns its result. Events that come meanwhile are looked at.
    #[track_caller]
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.look_at(&message);
        }
    }

    fn look_at(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requested.extend(parameters["request"]["url"].as_str().map(str::to_owned));
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters["exceptionDetails"].to_string()),
            Some("Log.entryAdded") => self.complaints.push(parameters["entry"].to_string()),
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
