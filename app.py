"""The dashboard: ``streamlit run app.py``. It asks for the token that is printed when it starts."""

from streamlit.starlette import App

from dgviz.app.launch import MAIN, announced, guarded, server_token

token = server_token()
app = App(MAIN, middleware=guarded(token), lifespan=announced(token))
