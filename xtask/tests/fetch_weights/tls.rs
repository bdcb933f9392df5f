//! A certificate authority that only its own network knows.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::bench::{Bench, tiny_dit};

/// Serves `file` to everybody over TLS; returns the port. The thread ends with the process.
fn serve_tls(file: Vec<u8>, key: &rcgen::KeyPair, certificate: &rcgen::Certificate) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a key that fits its certificate");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).expect("a sound configuration");
            let mut stream = StreamOwned::new(connection, stream);
            let mut head = Vec::new();
            let mut byte = [0; 1];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            // A client that does not trust us has left already.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", file.len());
            let _ = stream.write_all(&file);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

#[test]
fn a_certificate_authority_of_ones_own_is_honoured() {
    let tiny = tiny_dit();
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .and_then(|p| p.self_signed(&key))
        .expect("a certificate");
    let port = serve_tls(tiny.file.clone(), &key, &certificate);
    let bench = Bench::new(
        &json!([{"name": "tiny", "kind": "dit", "license": "MIT", "config": {"num_heads": tiny.config.heads},
        "files": [{"path": "Tiny.pt", "urls": [format!("https://localhost:{port}/Tiny.pt")],
                   "bytes": tiny.file.len(), "sha256": tiny.sha256}]}]),
    );
    let pem = bench.root().join("ca.pem");
    std::fs::write(&pem, certificate.pem()).expect("a file");
    let other = bench.root().join("other.pem");
    let other_key = rcgen::KeyPair::generate().expect("a key");
    let other_certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .and_then(|p| p.self_signed(&other_key))
        .expect("a certificate");
    std::fs::write(&other, other_certificate.pem()).expect("a file");
    let empty = bench.root().join("empty.pem");
    std::fs::write(&empty, "").expect("a file");

    let with = |file: &std::path::Path| bench.run_with(&["tiny"], &[("SSL_CERT_FILE", &file.to_string_lossy())]);
    with(&other).expect(12, &["SSL_CERT_FILE", "no secure connection"]);
    with(&empty).expect(2, &["SSL_CERT_FILE"]);
    with(&pem).expect(0, &["ready: tiny"]);
}
