#include "resp-tls.hpp"

#ifdef ATLAS_HAS_OPENSSL
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

#include <new>

namespace atlas::resp {

#ifdef ATLAS_HAS_OPENSSL

namespace {

void use_files(const tier_url & url, SSL_CTX * context) {
    const std::string ca = url.text("ca"), cert = url.text("cert"), key = url.text("key");
    if (cert.empty() != key.empty()) {
        url.refuse("the options 'cert' and 'key' go together");
    }
    if (ca.empty() ? SSL_CTX_set_default_verify_paths(context) != 1
                   : SSL_CTX_load_verify_locations(context, ca.c_str(), nullptr) != 1) {
        url.refuse("the option 'ca' names no readable file of certificates: '" + ca + "'");
    }
    if (!cert.empty() && SSL_CTX_use_certificate_chain_file(context, cert.c_str()) != 1) {
        url.refuse("the option 'cert' names no readable certificate: '" + cert + "'");
    }
    if (!key.empty() && (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1 ||
                         SSL_CTX_check_private_key(context) != 1)) {
        url.refuse("the option 'key' names no readable key of that certificate: '" + key + "'");
    }
}

} // namespace

tls_client::tls_client(const tier_url & url) : context(SSL_CTX_new(TLS_client_method())), name(url.text("name")) {
    if (!context) {
        throw std::bad_alloc();
    }
    try {
        SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
        SSL_CTX_set_verify(context, url.flag("verify", true) ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
        use_files(url, context);
    } catch (...) {
        SSL_CTX_free(context);
        throw;
    }
    ERR_clear_error();
}

tls_client::~tls_client() { SSL_CTX_free(context); }

ssl_st * tls_client::connection_to(const std::string & host) const {
    const std::string & expected = name.empty() ? host : name;
    SSL *               ssl      = SSL_new(context);
    if (!ssl) {
        throw std::bad_alloc();
    }
    // An address is looked for among a certificate's addresses, and is no name to ask for.
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), expected.c_str()) != 1 &&
        (SSL_set1_host(ssl, expected.c_str()) != 1 || SSL_set_tlsext_host_name(ssl, expected.c_str()) != 1)) {
        SSL_free(ssl);
        throw std::bad_alloc();
    }
    ERR_clear_error();
    return ssl;
}

#else

tls_client::tls_client(const tier_url & url) {
    url.refuse(
        "this build is without TLS, as OpenSSL was not there: install libssl-dev and build again; or use valkey://, "
        "which is not encrypted");
}

tls_client::~tls_client() = default;

ssl_st * tls_client::connection_to(const std::string &) const { throw std::bad_alloc(); }

#endif

} // namespace atlas::resp
