//! For tests (feature `test-server`): a small HTTP server on the loopback interface that can misbehave in every way that
//! downloads must survive.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a client asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path, with its query.
    pub path: String,
    headers: Vec<(String, String)>,
    /// How many requests came before it, whatever their path.
    pub number: usize,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// First byte asked for.
    pub fn start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// How the length of a body is told.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    /// As it is.
    Honest,
    /// As something else.
    Claimed(u64),
    /// Not at all: the body ends with the connection.
    Untold,
    /// In chunks.
    Chunked,
}

/// How a response ends.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// After its last byte.
    Whole,
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// The connection is reset after so many bytes.
    Reset(usize),
    /// Nothing comes after so many bytes, and the connection stays open.
    Stall(usize),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Length,
    ending: Ending,
    /// Bytes at a time, with a pause after each.
    pace: Option<(usize, Duration)>,
}

impl Response {
    /// A status and a body, told honestly.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, length, ending) = (Vec::new(), Length::Honest, Ending::Whole);
        Response { status, headers, body: body.into(), length, ending, pace: None }
    }

    /// The file, or the part of it that was asked for, as a correct server answers.
    pub fn file(request: &Request, content: &[u8], etag: &str) -> Self {
        let fresh = request.header("if-range").is_none_or(|validator| validator == etag);
        let total = content.len();
        let response = match request.start().filter(|_| fresh) {
            None => Response::new(200, content),
            Some(start) if start >= total => Response::new(416, "").with("Content-Range", &format!("bytes */{total}")),
            Some(start) => Response::new(206, &content[start..])
                .with("Content-Range", &format!("bytes {start}-{}/{total}", total - 1)),
        };
        response.with("ETag", etag).with("Accept-Ranges", "bytes")
    }

    /// To another address.
    pub fn redirect(location: &str) -> Self {
        Response::new(302, "moved").with("Location", location)
    }

    /// With a header, in place of any other of that name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With its length told otherwise.
    pub fn length(mut self, length: Length) -> Self {
        self.length = length;
        self
    }

    /// With another end.
    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// So many bytes at a time, with a pause after each.
    pub fn pace(mut self, bytes: usize, pause: Duration) -> Self {
        self.pace = Some((bytes, pause));
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.length {
            Length::Honest => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
            Length::Claimed(n) => head.push_str(&format!("Content-Length: {n}\r\n")),
            Length::Untold => {}
            Length::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        let (Ending::Cut(end) | Ending::Reset(end) | Ending::Stall(end)) = self.ending else {
            return self.send_body(stream, &self.body, true);
        };
        self.send_body(stream, &self.body[..end.min(self.body.len())], false)?;
        match self.ending {
            Ending::Reset(_) => {
                // Linger of zero: closing sends RST instead of FIN. The pause lets the bytes arrive first.
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(20));
                rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO))?;
            }
            Ending::Stall(_) => {
                // Until the client has had enough.
                let _ = stream.read(&mut [0; 1]);
            }
            Ending::Cut(_) | Ending::Whole => {}
        }
        Ok(())
    }

    fn send_body(&self, stream: &mut TcpStream, body: &[u8], to_the_end: bool) -> std::io::Result<()> {
        let (piece, pause) = self.pace.unwrap_or((usize::MAX, Duration::ZERO));
        for piece in body.chunks(piece.min(64 * 1024)) {
            if let Length::Chunked = self.length {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            } else {
                stream.write_all(piece)?;
            }
            if !pause.is_zero() {
                stream.flush()?;
                std::thread::sleep(pause);
            }
        }
        if to_the_end && let Length::Chunked = self.length {
            stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(())
    }
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// Serves until dropped.
#[derive(Debug)]
pub struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Answers every request as `handler` says.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on the loopback interface");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let acceptor = {
            let (requests, stopping) = (requests.clone(), stopping.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let (requests, handler) = (requests.clone(), handler.clone());
                    std::thread::spawn(move || serve(stream, &requests, &*handler));
                }
            })
        };
        Server { port, requests, stopping, acceptor: Some(acceptor) }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// All requests so far.
    ///
    /// # Panics
    /// If a handler panicked.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no handler panicked").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(mut stream: TcpStream, requests: &Mutex<Vec<Request>>, handler: &Handler) {
    let Some((path, headers)) = read_head(&mut stream) else { return };
    let request = {
        let mut requests = requests.lock().expect("no handler panicked");
        let request = Request { path, headers, number: requests.len() };
        requests.push(request.clone());
        request
    };
    // A client that was killed closes the connection: nothing to report.
    let response = handler(&request);
    if response.send(&mut stream).is_ok() && !matches!(response.ending, Ending::Reset(_)) {
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
        let _ = stream.read(&mut [0; 1]);
    }
}

fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<(String, String)>)> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 64 * 1024 || stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
    Some((path, headers))
}

/// Bytes that look like nothing in particular, the same each time.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1);
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8 | 0x80 // never the beginning of a page
    })
    .take(len)
    .collect()
}
