// A token endpoint that answers as it is told to, by the scope that is asked for. It prints its port.
import { OAuth2Server } from 'oauth2-mock-server';

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
const raw = (response, type, text) => {
  response.json = () => response.type(type).send(text);
};
server.service.on('beforeResponse', (answer, request) => {
  const response = request.res;
  const odd = {
    plain: () => {},
    unavailable: () => { answer.statusCode = 503; },
    bad_gateway: () => { answer.statusCode = 502; },
    limited: () => { answer.statusCode = 429; },
    redirect: () => { answer.statusCode = 307; response.set('location', 'http://127.0.0.1:1/'); },
    nothing: () => raw(response, 'application/json', ''),
    object: () => { answer.body = {}; },
    list: () => { answer.body = [answer.body.access_token]; },
    number: () => { answer.body.access_token = 42; },
    empty_token: () => { answer.body.access_token = ''; },
    text_life: () => { answer.body.expires_in = '3600'; },
    negative_life: () => { answer.body.expires_in = -1; },
    mac: () => { answer.body.token_type = 'mac'; },
    html: () => raw(response, 'text/html', '<html>signed in</html>'),
    form: () => raw(response, 'application/x-www-form-urlencoded', 'access_token=abcdefghijk&token_type=bearer'),
    cut: () => raw(response, 'application/json', JSON.stringify(answer.body).slice(0, -1)),
    huge: () => { answer.body.padding = 'x'.repeat(1 << 20); },
    error_in_200: () => { answer.body = { error: 'invalid_grant', error_description: 'c4n4ry' }; },
    invalid_grant: () => { answer.statusCode = 400; answer.body = { error: 'invalid_grant', error_description: 'c4n4ry' }; },
    invalid_client: () => { answer.statusCode = 401; answer.body = { error: 'invalid_client', error_description: 'c4n4ry' }; },
    html_400: () => { answer.statusCode = 400; raw(response, 'text/html', '<html>c4n4ry invalid_grant</html>'); },
    // Until who asked has gone.
    slow: () => { response.json = () => {}; },
    slow_body: () => { response.json = () => { response.type('application/json').write('{'); }; },
    hang_up: () => { response.json = () => response.destroy(); },
  };
  console.log(`asked ${request.body.scope}`);
  odd[request.body.scope]();
});
await server.start(0, '127.0.0.1');
console.log(`port ${server.address().port}`);
