//! The metrics endpoint.

use std::net::SocketAddr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

/// Serves `/metrics` until it is dropped. `scrape` makes the text.
///
/// # Errors
/// If the listener breaks.
pub async fn serve<F, R>(listener: TcpListener, scrape: F) -> std::io::Result<()>
where
    F: Fn() -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Vec<u8>, String>> + Send,
{
    let handler = move || async move {
        match scrape().await {
            Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
        }
    };
    axum::serve(listener, Router::new().route("/metrics", get(handler))).await
}

/// Binds the endpoint.
///
/// # Errors
/// A sentence that says what else may be done.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        format!(
            "metrics cannot be served at {address}: {error}; choose another address with `metrics:`, or `off`"
        )
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_and_nothing_else() {
        let listener = super::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(super::serve(listener, || async {
            Ok(b"dpufw_degraded 0\n".to_vec())
        }));
        let answer = get(address, "/metrics").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("dpufw_degraded 0\n"),
            "{answer}"
        );
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
        task.abort();
    }
}
